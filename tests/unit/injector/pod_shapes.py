"""Pods of many shapes, as API servers send them; each with what becomes of it."""

from patched_pods import pod_of

APP = {"name": "app", "image": "registry.example/app:1"}
HTTP = {"httpGet": {"path": "/", "port": 8080}}
LIMITED = {
    "limits": {"cpu": "1", "memory": "1Gi"},
    "requests": {"cpu": "1000m", "memory": "1024Mi"},
}
TOKEN = {
    "name": "kube-api-access-x7k2p",
    "projected": {
        "defaultMode": 420,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {
                "configMap": {
                    "name": "kube-root-ca.crt",
                    "items": [{"key": "ca.crt", "path": "ca.crt"}],
                }
            },
        ],
    },
}


def app(**more):
    return APP | more


def wish(**annotations):
    return {f"costd.dev/{name.replace('_', '-')}": value for name, value in annotations.items()}


INJECTED = {
    "bare": pod_of(),
    "named by hand": {"metadata": {"name": "one"}, "spec": {"containers": [APP]}},
    "with a name of 253 characters": {
        "metadata": {"name": "a" * 253},
        "spec": {"containers": [APP]},
    },
    "from a Deployment, with defaults and token": {
        "metadata": {
            "generateName": "agents-6c9f7d5b8-",
            "labels": {"app": "agents", "pod-template-hash": "6c9f7d5b8"},
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": "agents-6c9f7d5b8",
                    "uid": "9a1d3e9e-3f5c-4ad1-8c1a-0c5cbb1a7a11",
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {
            "volumes": [TOKEN],
            "containers": [
                app(
                    volumeMounts=[
                        {
                            "name": TOKEN["name"],
                            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                            "readOnly": True,
                        }
                    ],
                    terminationMessagePath="/dev/termination-log",
                    terminationMessagePolicy="File",
                    imagePullPolicy="IfNotPresent",
                    resources={},
                )
            ],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "default",
            "serviceAccount": "default",
            "securityContext": {},
            "schedulerName": "default-scheduler",
            "enableServiceLinks": True,
            "priority": 0,
        },
    },
    "of a Job": pod_of(restartPolicy="Never", labels={"batch.kubernetes.io/job-name": "j"}),
    "of a CronJob that retries": pod_of(restartPolicy="OnFailure", activeDeadlineSeconds=600),
    "of an indexed Job": pod_of(
        app(
            env=[
                {
                    "name": "JOB_COMPLETION_INDEX",
                    "valueFrom": {
                        "fieldRef": {
                            "fieldPath": "metadata.annotations["
                            "'batch.kubernetes.io/job-completion-index']"
                        }
                    },
                }
            ]
        ),
        restartPolicy="Never",
    ),
    "of a StatefulSet with a claim": pod_of(
        app(volumeMounts=[{"name": "state", "mountPath": "/state"}]),
        volumes=[{"name": "state", "persistentVolumeClaim": {"claimName": "state-a-0"}}],
        hostname="a-0",
        subdomain="a",
        securityContext={"fsGroup": 2000},
    ),
    "of a StatefulSet with a claim for its books": pod_of(
        volumes=[{"name": "costd-data", "persistentVolumeClaim": {"claimName": "costd-data-a-0"}}],
        hostname="a-0",
        securityContext={"fsGroup": 2000},
    ),
    "of a DaemonSet that tolerates all": pod_of(
        tolerations=[{"operator": "Exists"}],
        affinity={
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {
                            "matchFields": [
                                {"key": "metadata.name", "operator": "In", "values": ["n"]}
                            ]
                        }
                    ]
                }
            }
        },
    ),
    "with init containers": pod_of(
        initContainers=[{"name": "migrate", "image": "m"}, {"name": "warm", "image": "w"}]
    ),
    "with a sidecar of its own": pod_of(
        initContainers=[
            {"name": "proxy", "image": "p", "restartPolicy": "Always", "startupProbe": HTTP},
            {"name": "migrate", "image": "m"},
        ]
    ),
    "behind a mesh": pod_of(
        initContainers=[
            {"name": "istio-validation", "image": "i"},
            {"name": "istio-proxy", "image": "i", "restartPolicy": "Always"},
            {"name": "migrate", "image": "m"},
        ]
    ),
    "with ten containers": pod_of(*[{"name": f"c{n}", "image": "c"} for n in range(10)]),
    "with null where lists may be": pod_of(
        app(env=None, volumeMounts=None, ports=None), initContainers=None, volumes=None
    ),
    "with environment of its own": pod_of(
        app(
            env=[{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)"}],
            envFrom=[{"configMapRef": {"name": "c", "optional": True}}],
        )
    ),
    "with COSTD_SOCKET of its own": pod_of(
        app(env=[{"name": "COSTD_SOCKET", "value": "/elsewhere.sock"}])
    ),
    "with COSTD_ADDRESS of its own": pod_of(
        app(env=[{"name": "COSTD_ADDRESS", "value": "node:1"}])
    ),
    "read-only, restricted": pod_of(
        app(
            securityContext={
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            },
            volumeMounts=[{"name": "tmp", "mountPath": "/tmp"}],
        ),
        securityContext={
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "fsGroup": 1000,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        volumes=[{"name": "tmp", "emptyDir": {"medium": "Memory"}}],
    ),
    "privileged": pod_of(app(securityContext={"privileged": True})),
    "Guaranteed": pod_of(app(resources=LIMITED)),
    "Burstable": pod_of(app(resources={"requests": {"cpu": "1"}})),
    "with resources of the pod": pod_of(resources={"limits": {"cpu": "2", "memory": "2Gi"}}),
    "with every kind of probe": pod_of(
        app(
            livenessProbe=HTTP,
            readinessProbe={"tcpSocket": {"port": 8080}},
            startupProbe={"grpc": {"port": 9000}},
            lifecycle={"preStop": {"sleep": {"seconds": 3}}},
        )
    ),
    "with the metrics' port": pod_of(app(ports=[{"name": "metrics", "containerPort": 9464}])),
    "with a short time to end": pod_of(terminationGracePeriodSeconds=3),
    "with no time to end": pod_of(terminationGracePeriodSeconds=0),
    "with one process namespace": pod_of(shareProcessNamespace=True),
    "among its node's processes": pod_of(hostPID=True),
    "without a token": pod_of(automountServiceAccountToken=False),
    "for Linux, and says so": pod_of(
        os={"name": "linux"}, nodeSelector={"kubernetes.io/os": "linux"}
    ),
    "in a user namespace": pod_of(hostUsers=False),
    "with a runtime of its own": pod_of(runtimeClassName="gvisor", schedulerName="mine"),
    "with a mount above ours": pod_of(
        app(volumeMounts=[{"name": "run", "mountPath": "/run"}]),
        volumes=[{"name": "run", "emptyDir": {}}],
    ),
    "with our volume written by hand": pod_of(
        app(volumeMounts=[{"name": "costd-run", "mountPath": "/run/costd"}]),
        volumes=[{"name": "costd-run", "emptyDir": {}}],
    ),
    "with our volume elsewhere, too": pod_of(
        app(volumeMounts=[{"name": "costd-run", "mountPath": "/sockets"}]),
        volumes=[{"name": "costd-run", "emptyDir": {}}],
    ),
    "with scheduling gates and devices": pod_of(
        app(resources={"limits": {"nvidia.com/gpu": "1"}}),
        schedulingGates=[{"name": "example.com/wait"}],
        resourceClaims=[{"name": "gpu", "resourceClaimTemplateName": "gpu"}],
    ),
    "with annotations of the autoscaler": pod_of(
        annotations={
            "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes": "scratch,costd-data"
        }
    ),
    "huge": pod_of(
        *[
            {
                "name": f"c{n}",
                "image": "c",
                "env": [{"name": f"V{v}", "value": "x" * 1_000} for v in range(20)],
            }
            for n in range(60)
        ],
        annotations={"example.com/blob": "x" * 200_000},
    ),
    "with every wish": pod_of(
        labels={"costd.dev/label-agent": "coder", "costd.dev/label-team": "research"},
        annotations=wish(
            inject="true",
            image="registry.example:5000/costd@sha256:" + "a" * 64,
            image_pull_policy="Always",
            policy="rules/agents.yaml",
            kill_switches="stops",
            claims="security_review,deploy",
            cpu="100m",
            memory="128Mi",
            cpu_limit="1",
            memory_limit="1Gi",
            data_claim="books",
            drain_s="2.5",
            metrics_port="9000",
            log_level="debug",
        ),
    ),
    "in a fleet": pod_of(
        annotations=wish(coordinator="coordinator.costd-system.svc:9466", coordinator_tls="cert")
    ),
    "in a fleet, with a group": pod_of(
        annotations=wish(coordinator="[::1]:9466,b:9466", coordinator_tls="cert"),
        securityContext={"fsGroup": 1},
    ),
    "without kill switches, metrics and limits": pod_of(
        annotations=wish(
            kill_switches="none",
            metrics_port="none",
            memory_limit="none",
            cpu="none",
            memory="none",
        )
    ),
    "with a limit for its books": pod_of(annotations=wish(data_size="2Gi")),
    "with an ordinary container": pod_of(
        annotations=wish(mode="container"), initContainers=[{"name": "migrate", "image": "m"}]
    ),
}
"""Pods that get a sidecar under the default settings."""

LEFT_ALONE = {
    "opted out by label": ("opted_out", pod_of(labels={"costd.dev/inject": "false"})),
    "opted out by annotation": ("opted_out", pod_of(annotations={"costd.dev/inject": "disabled"})),
    "opted out, and otherwise wrong": (
        "opted_out",
        pod_of(labels={"costd.dev/inject": "false"}, annotations=wish(nonsense="1")),
    ),
    "on its node's network": ("host_network", pod_of(hostNetwork=True)),
    "for Windows": ("windows", pod_of(os={"name": "windows"})),
    "for nodes with Windows": ("windows", pod_of(nodeSelector={"kubernetes.io/os": "windows"})),
    "with options for Windows": (
        "windows",
        pod_of(securityContext={"windowsOptions": {"hostProcess": True}}, hostNetwork=True),
    ),
    "with a container for Windows": (
        "windows",
        pod_of(app(securityContext={"windowsOptions": {"runAsUserName": "x"}})),
    ),
    "the image of a static pod": (
        "mirror_pod",
        pod_of(annotations={"kubernetes.io/config.mirror": "a" * 32}),
    ),
}

KEPT_OUT = {
    "a container of our name": (
        "name_taken",
        pod_of({"name": "costd", "image": "theirs"}, APP),
        "container costd",
    ),
    "no container but ours": (
        "name_taken",
        pod_of({"name": "costd", "image": "c"}, annotations={"costd.dev/injected": "0.1.0"}),
        "has no container but costd",
    ),
    "an init container of our name": (
        "name_taken",
        pod_of(initContainers=[{"name": "costd", "image": "theirs"}]),
        "container costd",
    ),
    "a volume of our name": (
        "name_taken",
        pod_of(volumes=[{"name": "costd-data", "hostPath": {"path": "/data"}}]),
        "volume costd-data",
    ),
    "a mount at our path": (
        "path_taken",
        pod_of(
            app(volumeMounts=[{"name": "v", "mountPath": "/run/costd/"}]),
            volumes=[{"name": "v", "emptyDir": {}}],
        ),
        "container app mounts v at /run/costd",
    ),
    "a mount below our path": (
        "path_taken",
        pod_of(
            app(volumeMounts=[{"name": "v", "mountPath": "/run/costd/agent"}]),
            volumes=[{"name": "v", "emptyDir": {}}],
        ),
        "mount it elsewhere",
    ),
    "our volume below our path": (
        "path_taken",
        pod_of(
            app(volumeMounts=[{"name": "costd-run", "mountPath": "/run/costd/agent"}]),
            volumes=[{"name": "costd-run", "emptyDir": {}}],
        ),
        "container app mounts costd-run at /run/costd/agent",
    ),
    "another claim than the annotation says": (
        "name_taken",
        pod_of(
            annotations=wish(data_claim="books"),
            volumes=[{"name": "costd-data", "persistentVolumeClaim": {"claimName": "mine"}}],
        ),
        "volume costd-data of its own",
    ),
    "the books' claim in a volume of its own": (
        "name_taken",
        pod_of(
            annotations=wish(data_claim="books"),
            volumes=[{"name": "mine", "persistentVolumeClaim": {"claimName": "books"}}],
        ),
        "volume mine has the claim books, and a pod that has one twice never starts",
    ),
    "a mount of the sidecar's books": (
        "name_taken",
        pod_of(app(volumeMounts=[{"name": "costd-data", "mountPath": "/books"}])),
        "container app mounts costd-data, which is the sidecar's alone",
    ),
    **{
        f"a mount at our path as {path}": (
            "path_taken",
            pod_of(
                app(volumeMounts=[{"name": "v", "mountPath": path}]),
                volumes=[{"name": "v", "emptyDir": {}}],
            ),
            "mount it elsewhere",
        )
        for path in ("//run/costd", "run/costd/agent", "/run/./costd")
    },
    "an ordinary container in a Job": (
        "never_ends",
        pod_of(restartPolicy="Never", annotations=wish(mode="container")),
        "this pod would not either",
    ),
    "annotations that fill the object": (
        "too_large",
        pod_of(annotations={"example.com/blob": "x" * (256 * 1024 - 20)}),
        "shorten them",
    ),
    "more containers than can be looked at while others wait": (
        "too_large",
        pod_of(*[{"name": f"c{n}", "image": "c"} for n in range(501)]),
        "has 501 containers, and at most 500",
    ),
    "more labels than an ask may have": (
        "bad_annotation",
        pod_of(labels={f"costd.dev/label-l{n}": "x" for n in range(62)}),
        "at most 64 labels, and this pod fixes more",
    ),
    "an unclear wish": (
        "bad_annotation",
        pod_of(labels={"costd.dev/inject": "maybe"}),
        "'maybe' is neither true nor false",
    ),
    "contradicting wishes": (
        "bad_annotation",
        pod_of(labels={"costd.dev/inject": "true"}, annotations={"costd.dev/inject": "false"}),
        "disagree",
    ),
    "a misspelt annotation": (
        "bad_annotation",
        pod_of(annotations=wish(claim="x")),
        "did you mean costd.dev/claims?",
    ),
    "an annotation with our field's name": (
        "bad_annotation",
        pod_of(annotations={"costd.dev/cpu_limit": "1"}),
        "did you mean costd.dev/cpu-limit?",
    ),
    **{
        f"a bad {name}: {value[:20]!r}": (
            "bad_annotation",
            pod_of(annotations=wish(**{name: value})),
            says,
        )
        for name, value, says in (
            ("image", "", "is no image"),
            ("image", "a b", "is no image"),
            ("image_pull_policy", "always", "none of Always, IfNotPresent, Never"),
            ("mode", "sidecar", "none of native, container"),
            ("policy", "Rules", "is no object's name"),
            ("policy", "rules/../x", "is no file of a ConfigMap"),
            ("policy", "none", "a sidecar without a coordinator needs one"),
            ("kill_switches", "/", "is no object's name"),
            ("coordinator", "host", "not host:port"),
            ("coordinator", "a:1", "name the Secret"),
            ("coordinator", ",", "host:port,host:port or none"),
            ("coordinator_tls", "x y", "is no object's name"),
            ("claims", "a,b c", "is no task class"),
            ("claims", "", "class,class or none"),
            ("cpu", "1 core", "is no amount"),
            ("cpu", "-1", "is no amount"),
            ("memory", "0", "0 is nothing"),
            ("memory", "512Mi", "memory-limit: 256Mi is less than the memory of 512Mi"),
            ("drain_s", "1e3", "is no number of seconds"),
            ("drain_s", "3601", "is no number of seconds"),
            ("metrics_port", "65536", "is no port"),
            ("metrics_port", "0", "is no port"),
            ("log_level", "trace", "none of debug, info, warning, error"),
            ("data_claim", "UPPER", "is no object's name"),
            ("coordinator", "a:1," * 2_000, "8000 characters, and at most 4096 are read"),
        )
    },
    "a claim and a size": (
        "bad_annotation",
        pod_of(annotations=wish(data_claim="c", data_size="1Gi")),
        "a claim says its own size",
    ),
    "a policy in a fleet": (
        "bad_annotation",
        pod_of(annotations=wish(policy="p", coordinator="a:1", coordinator_tls="t")),
        "the coordinator publishes the policy",
    ),
    "a label that cannot be one": (
        "bad_annotation",
        pod_of(labels={"costd.dev/label-model": "x"}),
        "'model' cannot be the key of a label in costd",
    ),
    "a label without a value": (
        "bad_annotation",
        pod_of(labels={"costd.dev/label-run": ""}),
        "give it a value",
    ),
}
"""Pods that are not let in: why, and a part of what their owners are told."""


MALFORMED = [
    None,
    [],
    "pod",
    {},
    {"metadata": {}, "spec": {}},
    {"metadata": {}, "spec": {"containers": []}},
    {"metadata": {}, "spec": {"containers": {}}},
    {"metadata": {}, "spec": {"containers": [1]}},
    {"metadata": {}, "spec": {"containers": [{"image": "nameless"}]}},
    {"metadata": {"labels": {"a": 1}}, "spec": {"containers": [APP]}},
    {"metadata": {"annotations": []}, "spec": {"containers": [APP]}},
    {"metadata": {}, "spec": {"containers": [APP], "volumes": [{}]}},
    {
        "metadata": {},
        "spec": {"containers": [APP], "volumes": [{"name": "v", "persistentVolumeClaim": "c"}]},
    },
    {"metadata": {}, "spec": {"containers": [app(env=["A=1"])]}},
    {"metadata": {}, "spec": {"containers": [app(volumeMounts=[{"mountPath": 1}])]}},
    {"metadata": {}, "spec": {"containers": [APP], "terminationGracePeriodSeconds": "30"}},
    {"metadata": {}, "spec": {"containers": [APP], "securityContext": "none"}},
    {"metadata": {}, "spec": {"containers": [app(resources={"limits": [1]})]}},
    {"metadata": None, "spec": {"containers": [APP]}},
    {"metadata": {}, "spec": {"containers": [app(env=[{"name": "A", "valueFrom": "x"}])]}},
    {"metadata": {}, "spec": {"containers": [APP], "terminationGracePeriodSeconds": 10**400}},
]
