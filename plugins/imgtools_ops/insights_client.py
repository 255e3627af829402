"""The registration with Red Hat Insights."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="insights-client",
    heading="Remove the registration with Red Hat Insights",
    description="The ID that Insights gave and its marks of a registration.",
    plan=lambda guest, _: remove(
        guest,
        "/etc/insights-client/machine-id",
        "/etc/insights-client/.registered",
        "/etc/insights-client/.lastupload",
        "/etc/redhat-access-insights/machine-id",
    ),
)
