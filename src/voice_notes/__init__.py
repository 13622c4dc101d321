"""Voice notes: the reference pipeline that sidelight is shown on.

A recorded note becomes drafts that a person confirms or rejects:

    recording → transcript → claims → entity resolutions → drafts → verdicts

Five files change the business data (`artifacts`, `transcripts`, `claims`,
`entity_resolutions`, `drafts`), four talk to the outside world (`actions/`); `pipeline` puts
them in order. Those nine know nothing of sidelight but the decorators above their functions.
"""
