"""A real injector, and requests over TLS as an API server sends them."""

import base64
import http.client
import json
import socket
import ssl
from typing import Any, NamedTuple

from costd.testing.process import CostdProcess

CREATED = {
    "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
    "kind": {"group": "", "version": "v1", "kind": "Pod"},
    "resource": {"group": "", "version": "v1", "resource": "pods"},
    "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
    "requestResource": {"group": "", "version": "v1", "resource": "pods"},
    "namespace": "research",
    "operation": "CREATE",
    "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
    "oldObject": None,
    "dryRun": False,
    "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "generateName": "agents-6c9f7d5b8-",
        "labels": {"app": "agents", "pod-template-hash": "6c9f7d5b8"},
    },
    "spec": {
        "containers": [
            {
                "name": "app",
                "image": "registry.example/app:1",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "imagePullPolicy": "IfNotPresent",
            }
        ],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "schedulerName": "default-scheduler",
    },
}


def review_of(pod=POD, **more):
    """An AdmissionReview of a pod that is being created."""
    request = CREATED | {"object": pod} | more
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


class Answer(NamedTuple):
    """What came back."""

    status: int
    said: Any

    @property
    def response(self):
        """Of a review."""
        assert self.status == 200, self.said
        return self.said["response"]

    @property
    def patch(self):
        """The operations."""
        return json.loads(base64.b64decode(self.response["patch"]))


class InjectorProcess(CostdProcess):
    """An injector in a process of its own."""

    READY = "injecting"

    def __init__(self, *flags):
        super().__init__()
        self.flags = flags
        self.ca = ""
        self.host = "localhost"

    def command(self):
        """What to run."""
        ports = ("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0")
        return ["injector", *ports, *map(str, self.flags)]

    def address(self, event="injecting"):
        """Where it serves."""
        host, _, port = self.wait_for(event)["address"].rpartition(":")
        return host, int(port)

    def context(self):
        """What an API server trusts: the CA that it was told, and no other."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.ca)
        return context

    def connect(self):
        """A connection, as API servers keep them."""
        host, port = self.address()
        made = _Connection(host, port, timeout=30, context=self.context())
        made.server_name = self.host
        return made

    def open_plain(self, source="127.0.0.1"):
        """A connection from an address, on which nothing was said."""
        return socket.create_connection(self.address(), timeout=30, source_address=(source, 0))

    def open(self, source="127.0.0.1"):
        """A connection over TLS on which nothing was said."""
        return self.context().wrap_socket(self.open_plain(source), server_hostname=self.host)

    def ask(self, body, path="/inject?timeout=10s", *, method="POST", headers=None, over=None):
        """Send a request; over a connection that is there, or a new one."""
        connection = over or self.connect()
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        form = {"Content-Type": "application/json"} if headers is None else headers
        connection.request(method, path, body=raw, headers=form)
        response = connection.getresponse()
        read = response.read()
        if not over:
            connection.close()
        is_json = response.headers["content-type"] == "application/json"
        return Answer(response.status, json.loads(read) if is_json else read.decode())


class _Connection(http.client.HTTPSConnection):
    """Expects the service's name, wherever it connects."""

    server_name = "localhost"

    def connect(self):
        http.client.HTTPConnection.connect(self)
        self.sock = self._context.wrap_socket(self.sock, server_hostname=self.server_name)
