"""The kinds of message, and the codes of error replies that are no refusal's.

A relay reads these and needs no mathematics: this module imports nothing.
"""

TRAIN = "train.gswgan"
UPDATE = "train.fedavg_gan"
REGISTER = "query.register"

# Code of the error message of a client that failed; refusals have codes of their own.
CLIENT_FAILED = 1003
# No guard answered on the device; asking again later may help.
GUARD_UNREACHABLE = 1012
