# SPDX-License-Identifier: Apache-2.0
"""Documents that were checked against events/schema.json, as all of a test's should be."""

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from bpfsnoop.decoders.decode import Decoder
from bpfsnoop.events import ecs
from bpfsnoop.events.call import Call
from bpfsnoop.events.process import Process
from calls import process_of

SCHEMA_PATH = Path(ecs.__file__).with_name("schema.json")
SCHEMA: dict[str, Any] = json.loads(SCHEMA_PATH.read_bytes())
VALIDATOR = Draft202012Validator(SCHEMA)

ORIGIN = ecs.Origin(
    "host.example", "0123456789abcdef0123456789abcdef", "tracepoint",
    "8a7e5b1c-0d2f-4e3a-9b6c-112233445566", 4_026_531_841,
)  # fmt: skip

DECODER = Decoder()


def checked(document: ecs.Document) -> ecs.Document:
    """The document as its reader has it.

    :raises jsonschema.ValidationError: it is not what the schema says.
    """
    read: ecs.Document = json.loads(ecs.json_line(document))
    VALIDATOR.validate(read)
    return read


def document_of(
    call: Call,
    process: Process | None = None,
    *,
    origin: ecs.Origin = ORIGIN,
    time_ns: int = 0,
    message: str = "",
) -> ecs.Document:
    """:param process: by default one of which nothing was told."""
    document = ecs.event_document(
        DECODER.decode(call), process or process_of(call), origin,
        time_ns=time_ns, sequence=1, message=message,
    )  # fmt: skip
    return checked(document)
