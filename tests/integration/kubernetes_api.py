"""A server that behaves as Kubernetes' API does for the few objects that an injector asks for."""

import json
import ssl
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from costd.testing.certifier import Certifier
from costd.trust import Kind

SECRETS = "/api/v1/namespaces/costd-system/secrets"
SECRET = f"{SECRETS}/costd-injector-tls"
WEBHOOK = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/costd-injector"
TOKEN = "a-token"
VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch"}
REASONS = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound"}
REASONS |= {409: "Conflict", 422: "Invalid", 500: "InternalError"}


class KubernetesApi:
    """Objects by path, each with a resourceVersion; who asks must show the token."""

    def __init__(self, folder):
        certifier = Certifier(folder / "cluster")
        pair = certifier.pair(Kind.DAEMON, "api")
        self.account = folder / "serviceaccount"
        self.account.mkdir()
        (self.account / "token").write_text(f"{TOKEN}\n")
        (self.account / "ca.crt").write_bytes(certifier.ca.read_bytes())
        (self.account / "namespace").write_text("costd-system")
        self.objects = {}
        self.version = 0
        self.refused = {}
        """Statuses that calls are answered with, by verb and path."""
        self.before = {}
        """What happens first, once, by verb and path: somebody else is quicker."""
        self.asked = []
        """Verbs and paths, in order."""
        self.now_ns = None
        """What time it has, or says in words; None: the system's."""
        self._lock = threading.RLock()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def port(self):
        """Where it serves."""
        return self._server.server_port

    @property
    def environment(self):
        """What the kubelet tells a pod."""
        return {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.port),
        }

    def close(self):
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def apply(self, path, **made):
        """Put an object there, as somebody else does."""
        with self._lock:
            self.version += 1
            metadata = {"name": path.rpartition("/")[2], "resourceVersion": str(self.version)}
            self.objects[path] = made | {"metadata": metadata}

    def apply_webhook(self, *, count=2):
        """Apply the configuration as its manifest has it: without a CA."""
        client = {"service": {"namespace": "costd-system", "name": "costd-injector"}}
        webhooks = [{"name": f"w{n}.costd.dev", "clientConfig": {**client}} for n in range(count)]
        self.apply(WEBHOOK, webhooks=webhooks)

    def bundles(self):
        """What the API server trusts, webhook by webhook."""
        with self._lock:
            found = self.objects.get(WEBHOOK, {}).get("webhooks", ())
            return [each["clientConfig"].get("caBundle") for each in found]

    def answer(self, verb, path, token, form, body):
        """Do what is asked, or say why not."""
        with self._lock:
            self.asked.append((verb, path))
            if token != f"Bearer {TOKEN}":
                return 401, "no such token"
            self.before.pop((verb, path), lambda: None)()
            if (verb, path) in self.refused:
                status = self.refused[verb, path]
                return status, f"system:serviceaccount:x cannot {verb} this"
            return getattr(self, f"_{verb}")(path, form, body)

    def _get(self, path, _form, _body):
        if path not in self.objects:
            return 404, f"{path} not found"
        return 200, self.objects[path]

    def _create(self, path, form, body):
        if form != "application/json" or body["kind"] != "Secret":
            return 400, "no such form"
        there = f"{path}/{body['metadata']['name']}"
        if there in self.objects:
            return 409, f"{there} already exists"
        self.apply(there, **body)
        return 201, self.objects[there]

    def _update(self, path, form, body):
        if path not in self.objects:
            return 404, f"{path} not found"
        version = body["metadata"].get("resourceVersion")
        if version != self.objects[path]["metadata"]["resourceVersion"]:
            return 409, "the object has been modified"
        self.apply(path, **body)
        return 200, self.objects[path]

    def _patch(self, path, form, body):
        if path not in self.objects:
            return 404, f"{path} not found"
        if form != "application/json-patch+json":
            return 415, "no such patch"
        changed = json.loads(json.dumps(self.objects[path]))
        for operation in body:
            *steps, last = operation["path"].split("/")[1:]
            owner = changed
            for step in steps:
                owner = owner[int(step)] if isinstance(owner, list) else owner[step]
            if operation["op"] == "test" and owner.get(last) != operation["value"]:
                return 422, f"testing {operation['path']} failed"
            if operation["op"] == "add":
                owner[last] = operation["value"]
        self.apply(path, **changed)
        return 200, self.objects[path]


def _handler(api):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self):
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            token, form = self.headers.get("Authorization"), self.headers.get("Content-Type")
            status, said = api.answer(VERBS[self.command], self.path, token, form, body)
            if isinstance(said, str):
                said = {
                    "kind": "Status",
                    "apiVersion": "v1",
                    "status": "Failure",
                    "reason": REASONS.get(status, "Unknown"),
                    "code": status,
                    "message": said,
                }
            raw = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def date_time_string(self, timestamp=None):
            if isinstance(api.now_ns, str):
                return api.now_ns
            now_s = timestamp if api.now_ns is None else api.now_ns // 10**9
            return formatdate(now_s, usegmt=True)

        do_GET = do_POST = do_PUT = do_PATCH = _do  # noqa: N815

        def log_message(self, *_anything):
            """Say nothing."""

    return Handler
