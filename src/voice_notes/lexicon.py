"""The words by which `claim_rules` tells assertions from everything else."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PRONOUNS = _words("he she they")

#: Words that may be capitalized and are never the name of a person.
NOT_NAMES = _words("""
    a an the this that these those there here it its i we you he she they my our your his her
    their mine ours yours him us them me who whom whose what which when where why how somebody
    someone anybody anyone everybody everyone nobody something anything everything nothing both
    all some many most few each every another other others one two three several none
    and or but so because since although though while whereas if unless whether until as than
    then also now today tomorrow yesterday tonight later soon first second third next last finally
    meanwhile afterwards again still already just only even well yes no not never always maybe
    perhaps probably apparently hopefully unfortunately fortunately please thanks thank hello hi
    hey dear good morning afternoon evening bye goodbye sorry okay ok right anyway however
    therefore besides instead otherwise actually basically honestly
    in on at by for from with without about after before during under over between of to into
    through against near note notes reminder memo summary minutes update message meeting call
    visit trip project contract budget offer delivery team office company
    sales orders order prices costs customers people things work business management marketing
    engineering production support finance logistics shipping revenue money weather traffic
    is are was were be been being do does did has have had can could will would shall should
    may might must let
    monday tuesday wednesday thursday friday saturday sunday january february march april may
    june july august september october november december christmas easter
    english german french spanish italian american british european
""")

#: A title belongs to the name that follows it.
TITLES = _words("mr mrs ms miss dr doctor prof professor sir")

#: Small words inside a family name.
PARTICLES = _words("van von de der den del della di da dos du la le bin al ter zu")

#: Adverbs before a subject. The sentence is still an assertion. `FRAMES` has the phrases.
OPENING_ADVERBS = _words("""
    and but so also then now well today tomorrow yesterday tonight later soon afterwards
    meanwhile finally again anyway however therefore besides actually apparently obviously
    unfortunately fortunately luckily sadly surprisingly interestingly recently currently
    okay ok yes no oh um uh first second third next
""")

#: Phrases before an assertion that do not weaken it.
FRAMES = (
    "i think that", "i think", "i believe that", "i believe", "i heard that", "i heard",
    "i learned that", "i learned", "i noticed that", "i noticed", "i know that", "i know",
    "we know that", "we know", "we heard that", "we heard", "i am sure that", "i'm sure that",
    "i am sure", "i'm sure", "note that", "remember that", "it seems that", "it turns out that",
    "by the way", "the good news is that", "the bad news is that", "as you know",
)  # fmt: skip

#: A sentence with one of these at its start (frames and adverbs aside) asserts nothing at all.
UNREAL_OPENINGS = (
    "if", "unless", "whether", "suppose", "imagine", "hopefully", "maybe", "perhaps",
    "i hope", "we hope", "i wish", "we wish", "i wonder", "we wonder", "let us", "let's",
    "i doubt", "i guess", "i would like", "i'd like", "i want", "we want", "long live", "may",
)  # fmt: skip

#: A clause that begins with one of these is a question, with or without a question mark.
QUESTION_OPENINGS = _words("""
    is are was were do does did has have had can could will would shall should may might must
    isn't aren't wasn't weren't don't doesn't didn't hasn't haven't can't couldn't won't wouldn't
    shouldn't who whom whose what which when where why how
""")

#: Begin a clause after a comma that is about the speaker, or asserts nothing.
BREAKING_OPENINGS = _words("""
    i i'm i'll i've i'd we we're we'll we've you it it's please thanks thank let's
    can could will would shall should may might must do does did is are was were what why how
""")

#: Join two clauses, where a subject and its verb follow.
CONJUNCTIONS = _words("and but so while whereas")

#: Stand between a subject and its verb.
INNER_ADVERBS = _words("""
    already also always again almost even ever finally first however just later meanwhile
    never not now often only perhaps probably rather really sometimes soon still then therefore
    today tomorrow too usually very yesterday both all
""")

#: Begin an apposition: "Emma, who runs the warehouse, ..."
APPOSITIONS = _words("who whose the our their his her my a an from of at head chief")

#: Begin a phrase of time or place before a subject: "in March Emma ...", "last week Emma ..."
TIME_PREPOSITIONS = _words("in on at since by during")
TIME_SELECTORS = _words("last this next every")
TIMES = _words("""
    monday tuesday wednesday thursday friday saturday sunday january february march april may
    june july august september october november december week month year quarter morning
    afternoon evening night noon meantime end spring summer autumn fall winter time weekend
""")

#: "spoke to Emma" names a person, "drove to Lyon" does not.
SPEAKING = _words("spoke speak talk talked talking speaking wrote write according listened next")

#: A capitalized word after one of these is a place.
PLACING = _words("in at")

#: Forms of be, have and do, and the modals that state a fact.
STATING = _words("""
    is are was were has have had does do did will can isn't aren't wasn't weren't hasn't haven't
    hadn't doesn't don't didn't won't can't cannot
""")

#: The plural forms among `STATING`.
PLURAL_STATING = _words("are were have do aren't weren't haven't don't")

#: After "Emma's", these show that it stands for "Emma is".
AFTER_IS = _words("not been gone back here there ready happy a an the very in on at already still")

#: Modals that state no fact.
SUPPOSING = _words("""
    should must might may could would ought shall shouldn't mustn't mightn't couldn't wouldn't
    better
""")

#: "Would like" states a wish as a fact.
WISHING_VERBS = _words("like love prefer rather appreciate")

#: Past forms that do not end in "ed".
IRREGULAR_PAST = _words("""
    ate became began beat bent bet bid bit blew bought bound broke brought built burnt came
    caught chose cost cut dealt did drank drew drove dug fed fell felt fled flew forbade forgave
    forgot fought found froze gave got grew had heard held hid hit hung hurt kept knew laid led
    left lent let lost made meant met misled mistook overcame overheard oversaw paid put quit
    ran rang read rebuilt rode rose said sang sank sat saw sent set shone shook shot shut slept
    slid sold sought spent split spoke spread stole stood struck stuck sunk swam swore swept
    swung taught thought threw told took tore undertook understood understand upset was went
    were withdrew woke won wore wrote
""")

#: Words that end in "ed" and are not past forms.
NOT_PAST = _words("need feed speed indeed hundred proceed exceed succeed bleed breed seed red bed")

#: Words that end in "s" and are not verbs.
NOT_VERBS_IN_S = _words("""
    always besides perhaps sometimes afterwards towards upwards downwards thanks news yes
    unless plus across series its his hers theirs ours yours this thus as us is was has does
    yours regards wishes greetings
""")

#: Verbs after a plural subject. They have no "s" at the end.
PLURAL_VERBS = _words("""
    accept add agree aim answer appreciate approve argue arrive ask assume attend become begin
    believe belong bring build buy call cancel care change check choose claim close come complain
    complete confirm consider continue cost cover cut decide decline delay deliver demand depend
    deserve develop disagree discuss doubt drive earn end enjoy expect fear feel find finish
    follow forget get give go grow handle hate have hear help hire hold hope improve include insist
    intend invest invite join keep know lack lead learn leave like live lose love make manage
    mean meet miss move need offer open order organize own pay plan prefer prepare produce promise
    propose provide push put question reach receive recommend refuse regret reject rely remember
    renew rent repair replace reply report request require resign respond run save say see seem
    sell send share sign sound speak start stay stop suggest supply support take teach tell think
    travel treat trust try understand use visit wait want watch wish wonder work worry write
""")
