"""What can go wrong with a voice note; every message is written for the person who sent it."""


class VoiceNoteError(Exception):
    """The note, or something that its processing needs, cannot be used."""


class UnreadableFileError(VoiceNoteError):
    """A file that was named is missing, no file, or not ours to read."""


class BrokenRecordingError(VoiceNoteError):
    """The file is there, but it is no recording that can be decoded."""


class SilentRecordingError(VoiceNoteError):
    """The recording is sound, but nobody speaks in it."""


class RecognizerError(VoiceNoteError):
    """The speech recognizer cannot be used on this machine."""


class WordlessTranscriptError(VoiceNoteError):
    """The transcript holds no word from which a claim could be taken."""


class UnknownArtifactError(VoiceNoteError):
    """No artifact has this id."""


class DraftStateError(VoiceNoteError):
    """The draft does not exist, or somebody has decided on it before."""


class DirectoryError(VoiceNoteError):
    """The directory of people cannot be read."""


class DatabaseError(VoiceNoteError):
    """The business database cannot be opened."""
