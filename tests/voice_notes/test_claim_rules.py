"""The rules of `claim_rules`, one table for each."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_notes.claim_rules import claims_in
from voice_notes.errors import WordlessTranscriptError
from voice_notes.sentences import sentences


def found(text: str) -> list[str]:
    return [f"{claim.subject} | {claim.predicate}" for claim in claims_in(text)]


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("Emma signed the contract.", ["Emma | signed the contract"]),
        ("Emma Hall leads the team", ["Emma Hall | leads the team"]),
        ("Anna van der Berg cancelled.", ["Anna van der Berg | cancelled"]),
        ("Dr. Becker says no.", ["Becker | says no"]),
        ("J. Smith was here!", ["J Smith | was here"]),
        ("Emma never really left.", ["Emma | never really left"]),
        ("Emma will call.", ["Emma | will call"]),
        ("Emma cannot come.", ["Emma | cannot come"]),
        ("Emma doesn't agree.", ["Emma | doesn't agree"]),
        ("Emma would like a car.", ["Emma | would like a car"]),
        ("Jean-Luc O'Brien bought it.", ["Jean-Luc O'Brien | bought it"]),
        ("Zoë Müller renegotiates the lease.", ["Zoë Müller | renegotiates the lease"]),
    ],
)
def test_assertions(text, claims):
    assert found(text) == claims


@pytest.mark.parametrize(
    "text",
    [
        "Did Emma sign?",
        "Emma signed?",
        "Can Emma sign it.",
        "Hello Emma.",
        "Good morning, Emma!",
        "Thank you, Daniel.",
        "Emma, please call me back.",
        "Please call Emma.",
        "Tell Daniel that Emma left.",
        "Let's invite Emma.",
        "I hope Emma signs.",
        "I wish that Emma was here.",
        "Hopefully Emma signs, and Daniel agrees.",
        "Maybe Emma left.",
        "If Emma signs, Daniel will leave.",
        "Emma should call.",
        "Emma might have left.",
        "Emma would sign.",
        "Emma's contract is late.",
        "The contract was signed by Emma.",
        "She signed.",
        "Monday is fine.",
        "Sales are up.",
        "IBM buys companies.",
        "We were in Berlin. Berlin was cold.",
        "Grace is needed, and grace is rare.",
        "This is Anna from the office.",
        "Emma Hall, our customer.",
        "Okay.",
        "1. 2. 3. go",
    ],
)
def test_no_assertions(text):
    assert found(text) == []


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("Emma signed. She left.", ["Emma | signed", "Emma | left"]),
        ("I met Emma in Berlin. She left.", ["Emma | left"]),
        ("We met in Emma's office. She left.", ["Emma | left"]),
        ("I spoke to Emma. She left.", ["Emma | left"]),
        ("We drove to Lyon with Emma. She slept.", ["Emma | slept"]),
        ("Did you call Emma? She left.", ["Emma | left"]),
        ("Emma's been ill. She's back.", ["Emma | has been ill", "Emma | is back"]),
        ("Emma left. She'd like a car.", ["Emma | left", "Emma | would like a car"]),
        ("Emma left. They'll call.", ["Emma | left", "Emma | will call"]),
        (
            "Emma and Daniel signed. They want a car.",
            ["Emma | signed", "Daniel | signed", "Emma | want a car", "Daniel | want a car"],
        ),
        (
            "Emma, Daniel and Maria work here.",
            ["Emma | work here", "Daniel | work here", "Maria | work here"],
        ),
        (
            "Daniel signed. He met Emma. She agrees. He does not.",
            ["Daniel | signed", "Daniel | met Emma", "Emma | agrees", "Daniel | does not"],
        ),
        ("Emma Hall signed. Emma left.", ["Emma Hall | signed", "Emma Hall | left"]),
        ("Emma Hall signed. Ms. Hall left.", ["Emma Hall | signed", "Emma Hall | left"]),
        (
            "Emma Hall and Emma King signed. Emma left.",
            ["Emma Hall | signed", "Emma King | signed", "Emma | left"],
        ),
    ],
)
def test_who_is_meant(text, claims):
    assert found(text) == claims


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("Emma signed, Daniel left.", ["Emma | signed", "Daniel | left"]),
        ("Emma signed and Daniel left.", ["Emma | signed", "Daniel | left"]),
        ("Emma signed and left.", ["Emma | signed and left"]),
        ("Emma signed, but he left.", ["Emma | signed", "Emma | left"]),
        ("Emma signed, can we still change it?", ["Emma | signed"]),
        ("Should we ask him, Daniel left.", ["Daniel | left"]),
        ("Emma signed, please call her.", ["Emma | signed"]),
        ("Emma signed, I think.", ["Emma | signed"]),
        ("Note after the call, Emma signed.", ["Emma | signed"]),
        ("I called Emma and she wants a car.", ["Emma | wants a car"]),
        ("Because Emma left, Daniel is alone.", ["Daniel | is alone"]),
        ("Emma, who runs the place, is worried.", ["Emma | is worried"]),
        ("Emma, our customer, is worried.", ["Emma | is worried"]),
        ("Emma told me that Daniel left.", ["Emma | told me that Daniel left"]),
    ],
)
def test_clauses(text, claims):
    assert found(text) == claims


@pytest.mark.parametrize(
    "opening",
    [
        "Yesterday",
        "Also,",
        "Last week",
        "Last week,",
        "In March",
        "On Monday morning,",
        "I think that",
        "I heard",
        "By the way,",
        "Unfortunately,",
        "So today",
        "And then",
        "After the meeting,",
    ],
)
def test_openings(opening):
    assert found(f"{opening} Emma left.") == ["Emma | left"]


def test_a_claim_keeps_its_sentence():
    (claim,) = claims_in("Well. Yesterday, Emma left.  Did she?")
    assert claim.sentence == "Yesterday, Emma left."


def test_curly_apostrophes():
    assert found("Emma isn\N{RIGHT SINGLE QUOTATION MARK}t here.") == ["Emma | isn't here"]


@pytest.mark.parametrize("text", ["", "   ", "...", "12 34."])
def test_no_words(text):
    with pytest.raises(WordlessTranscriptError):
        claims_in(text)


def test_sentences():
    text = 'Dr. Becker left. "No!" I said. What? J. Smith came at 3.5 on'
    assert sentences(text) == [
        "Dr. Becker left.",
        '"No!"',
        "I said.",
        "What?",
        "J. Smith came at 3.5 on",
    ]


WORDS = st.sampled_from(
    [
        *("Emma", "Daniel", "van", "Dr.", "she", "he", "they", "I", "who", "the", "in", "If"),
        *("signed", "wants", "'s", "'d", "please", "and", "but", "not", ",", ".", "?", ";"),
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=30))
def test_any_jumble_of_words_is_read(jumble):
    for claim in claims_in(" ".join(["So", *jumble])):
        assert claim.subject
        assert claim.predicate
