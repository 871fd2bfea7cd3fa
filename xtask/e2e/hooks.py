"""What the OpenAPI document of jitney says in words only, told to schemathesis. Loaded by `cargo xtask e2e`."""

import uuid

import schemathesis

# Strings of more characters than this come in ASCII: the limits of the contract, 64 and more, count bytes of UTF-8,
# those of JSON Schema count characters.
SHORT = 16

NDJSON = "application/x-ndjson"
schemathesis.serializer.alias(NDJSON, "text/plain")


@schemathesis.hook
def before_load_schema(ctx, raw_schema):
    """An outcome that names a job is `unknown` or `refused` by itself, inside a `200`: such a body is no bad request."""
    schemas = raw_schema["components"]["schemas"]
    # Nor is any text under this type: a line that is no envelope is an entry of the answer.
    raw_schema["paths"]["/v1/jobs"]["post"]["requestBody"]["content"][NDJSON]["schema"] = {}
    schemas["Outcome"]["anyOf"].append(
        {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}
    )


@schemathesis.hook
def before_call(ctx, case, kwargs):
    """Makes a request keep the rules that a schema cannot say."""
    if isinstance(case.body, (dict, list, str)):
        case.body = bytes_as_characters(case.body)
    for place in (case.query, case.path_parameters):
        for name in place or {}:
            place[name] = bytes_as_characters(place[name])
    not_both_names(case)
    if {"group", "priority"} <= (case.query or {}).keys() and case.path.endswith("/policy"):
        # A policy is one group's or one priority's.
        del case.query["group"]


def not_both_names(case):
    """A job has an id of its own or an `Idempotency-Key`, not both; many jobs have no `Idempotency-Key`."""
    body = case.body if isinstance(case.body, dict) else {}
    many = case.path == "/v1/jobs" and (isinstance(case.body, list) or case.media_type == NDJSON)
    if many or any(is_uuid(place.get("id")) for place in (case.query or {}, body)):
        for name in [name for name in case.headers or {} if name.lower() == "idempotency-key"]:
            del case.headers[name]


def is_uuid(value):
    """Whether it is a UUID with hyphens: anything else is refused as it should be."""
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value.lower()
    except ValueError:
        return False


def bytes_as_characters(value):
    """The same value, its longer strings in ASCII."""
    if isinstance(value, str) and len(value) > SHORT:
        return value.encode("ascii", "replace").decode()
    if isinstance(value, dict):
        return {bytes_as_characters(name): bytes_as_characters(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [bytes_as_characters(inner) for inner in value]
    return value
