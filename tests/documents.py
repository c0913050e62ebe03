# SPDX-License-Identifier: Apache-2.0
"""Documents that were checked against events/schema.json, as all of a test's should be."""

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from bpfsnoop.decoders.decode import Decoder
from bpfsnoop.events import ecs
from bpfsnoop.events.call import Call

SCHEMA_PATH = Path(ecs.__file__).with_name("schema.json")
SCHEMA: dict[str, Any] = json.loads(SCHEMA_PATH.read_bytes())
VALIDATOR = Draft202012Validator(SCHEMA)

ORIGIN = ecs.Origin("host.example", "0123456789abcdef0123456789abcdef", "tracepoint")

DECODER = Decoder()


def checked(document: ecs.Document) -> ecs.Document:
    """The document as its reader has it.

    :raises jsonschema.ValidationError: it is not what the schema says.
    """
    read: ecs.Document = json.loads(ecs.json_line(document))
    VALIDATOR.validate(read)
    return read


def document_of(call: Call, *, message: str = "") -> ecs.Document:
    event = DECODER.decode(call)
    return checked(ecs.event_document(event, ORIGIN, time_ns=0, sequence=1, message=message))
