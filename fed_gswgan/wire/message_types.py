"""Types and record keys of the Flower messages; a relay reads these and needs no mathematics."""

TRAIN = "train"
REGISTER = "query.register"

# The one record of a message, and its keys.
RECORD = "fed-gswgan"
REQUESTS, CLIENTS, REPLIES = "requests", "clients", "replies"
ASK, CHALLENGE, NAME, PROOF = "ask", "challenge", "name", "proof"

# Codes of Flower errors; a guard's refusals have codes of their own, inside a reply.
CLIENT_FAILED = 1003
GUARD_UNREACHABLE = 1013
