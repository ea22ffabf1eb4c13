"""Limits that hold on every surface whatever an operator configures, and the shapes of names.

What an operator can configure (hours, GPUs, quotas) is policy and comes from the service; here
stands only what the wire format itself allows. Each pattern is anchored by `fullmatch`.
"""

import re

#: Longest reservation name (a display name: any printable characters), in characters.
NAME_MAX = 100
#: Longest reason or note that a person may give, in characters.
NOTE_MAX = 500
#: Largest request body that the API reads, in bytes.
BODY_MAX = 64 * 1024
#: Most items on one page of a list, and how many there are when nothing is asked.
PAGE_MAX = 200
PAGE_DEFAULT = 50
#: Hours as a number: enough for any policy, small enough for every date type.
HOURS_MAX = 24 * 366.0
#: A disk's name: a letter or digit, then letters, digits, `.`, `_`, `-`; 63 at most.
DISK_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
#: A reservation's id, which is its server's name too where gpudev chooses it. Sixteen characters
#: of which 2**77 exist; without "-", so that no join of user and server name can be ambiguous.
RESERVATION_ID = r"[a-z][a-z0-9]{15}"
#: The shortest id prefix that commands accept in place of an id.
ID_PREFIX_MIN = 4
#: A GPU type's or node's name as an operator writes it.
TYPE_NAME = r"[a-z0-9][a-z0-9.-]{0,62}"
NODE_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}"
#: A container image's full reference: registry, path, and tag or digest.
IMAGE = r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,511}"
#: A node's label, as Kubernetes has them: the key may begin with a domain, the value may be empty.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
LABEL_KEY = rf"(?:[a-z0-9](?:[a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_LABEL}"
LABEL_VALUE = rf"(?:{_LABEL})?"
#: Most labels that one request may ask for.
NODE_LABELS_MAX = 10
#: A Hub user's name, as far as gpudev has to know it.
USER_NAME = r"[^/\x00-\x1f\x7f]{1,255}"
#: Most groups of a user that come with a request; who is in more is asked about.
OWNER_GROUPS_MAX = 200
#: The account that an SSH login names; never anything that a command could take for an option.
LOGIN_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"
#: Public SSH keys of one person, and the longest line of one.
SSH_KEYS_MAX = 50
SSH_KEY_MAX = 8 * 1024
SSH_FINGERPRINT_MAX = 100
#: A client's Idempotency-Key.
IDEMPOTENCY_KEY = r"[\x21-\x7e]{8,128}"


def is_reservation_id(text: str) -> bool:
    """Whether `text` has the shape of an id that gpudev made."""
    return re.fullmatch(RESERVATION_ID, text) is not None
