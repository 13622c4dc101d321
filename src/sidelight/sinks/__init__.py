"""Where records go. A sink takes decoded records in order and raises when it cannot.

``SinkUnavailableError`` means "later": the relay keeps the records and tries again.
``SinkRefusedError`` means "never": the relay finds the record that is to blame and sets it aside.
"""
