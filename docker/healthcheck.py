"""The image's health check: 0 where the service is warm and accepting.

Plain Python, since a slim image has no curl; straight to the port, whatever proxy the environment
names.
"""

import http.client
import os
import sys

connection = http.client.HTTPConnection("127.0.0.1", int(os.environ["SUBPOSE_PORT"]), timeout=2)
try:
    connection.request("GET", "/readyz")
    status = connection.getresponse().status
except OSError as error:
    sys.exit(f"no answer: {error}")
sys.exit(None if status == 200 else f"/readyz answers {status}")
