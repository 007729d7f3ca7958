"""Waits until all Deployments of the release run only their newest pods, by polling the API server with the service account of the pod."""

import json
import os
import ssl
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
POLL_SECONDS = 2


def deployments():
    """Returns the Deployments of the release from the API server."""
    namespace = (ACCOUNT / "namespace").read_text()
    query = urllib.parse.urlencode({"labelSelector": os.environ["SELECTOR"]})
    address = f"https://kubernetes.default.svc/apis/apps/v1/namespaces/{namespace}/deployments?{query}"
    headers = {"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}"}
    trust = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), context=trust, timeout=10) as answer:
        return json.load(answer)["items"]


def is_rolled_out(deployment):
    """Whether all wanted pods are new and available, and no old pod is left."""
    wanted, status = deployment["spec"]["replicas"], deployment.get("status", {})
    is_seen = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
    return is_seen and counts == [wanted] * 3 and not status.get("terminatingReplicas")


def main():
    """Exits with status 1 and the names of late Deployments."""
    end = time.monotonic() + int(os.environ["TIMEOUT_SECONDS"])
    while True:
        try:
            late = [item["metadata"]["name"] for item in deployments() if not is_rolled_out(item)]
        except OSError as error:
            late = [f"the API server does not respond: {error}"]
        if not late:
            return
        if time.monotonic() > end:
            sys.exit(f"not rolled out: {', '.join(late)}; see `kubectl describe deployment`, then upgrade again")
        print(f"waiting for {', '.join(late)}", flush=True)
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main()
