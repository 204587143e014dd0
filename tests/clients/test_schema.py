"""schemathesis over the OpenAPI: whatever is sent, no answer is a 500, and every answer is as it is described."""

from __future__ import annotations

import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.clients.conftest import KEY

HEADERS = {"Authorization": f"Bearer {KEY}"}
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
BODIES = {"/rerank", "/v1/rerank", "/v2/rerank", "/answer"}


def test_no_request_is_a_500(url: str) -> None:
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", headers=HEADERS)
    tried = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        tried.add(operation.path)
        # What fits the schema, and, where there is a body to get wrong, what does not.
        wrong = [GenerationMode.NEGATIVE] if operation.path in BODIES else []
        for mode in [GenerationMode.POSITIVE, *wrong]:

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            def send(case: schemathesis.Case) -> None:
                case.call_and_validate(headers=HEADERS, checks=CHECKS)

            send()
    assert tried >= BODIES
