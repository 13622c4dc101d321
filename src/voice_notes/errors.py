"""Errors of the pipeline. Each message is written for the sender of the note."""


class VoiceNoteError(Exception):
    """The note, or a part that its processing needs, cannot be used."""


class UnreadableFileError(VoiceNoteError):
    """The named path is missing, is not a file, or may not be read."""


class BrokenRecordingError(VoiceNoteError):
    """The file exists, but cannot be decoded as a recording."""


class SilentRecordingError(VoiceNoteError):
    """The recording can be decoded, but nobody speaks in it."""


class RecognizerError(VoiceNoteError):
    """The speech recognizer cannot be used on this machine."""


class WordlessTranscriptError(VoiceNoteError):
    """The transcript holds no words."""


class UnknownArtifactError(VoiceNoteError):
    """No artifact has this id."""


class DraftStateError(VoiceNoteError):
    """The draft does not exist, or has a verdict already."""


class DirectoryError(VoiceNoteError):
    """The directory of people cannot be read."""


class DatabaseError(VoiceNoteError):
    """The business database cannot be opened."""
