"""Export -> OpenAI-compatible HTTP on Ray Serve."""

import logging

from kit19_ray.redaction import RedactingFilter

logging.getLogger("ray.serve").addFilter(RedactingFilter())  # gateway and replicas log there
