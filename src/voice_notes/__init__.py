"""Voice notes: the reference pipeline of sidelight.

A recorded note becomes drafts that a person confirms or rejects:

    recording → transcript → claims → entity resolutions → drafts → verdicts

Five files change the business data (`artifacts`, `transcripts`, `claims`,
`entity_resolutions`, `drafts`). Four talk to the outside world (`actions/`). `pipeline` calls
them in order. Those nine files use nothing of sidelight except the decorators.
"""
