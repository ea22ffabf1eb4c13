"""The real node runs real pods, with GPUs, names and addresses."""

from __future__ import annotations

import httpx
import pytest

from tests.cluster.pods import pod, run
from tools.cluster import node
from tools.cluster.cluster import GPUS, Cluster
from tools.cluster.kubectl import Kubectl, Manifest

pytestmark = pytest.mark.cluster


def test_a_pod_with_gpus_runs_and_says_so(namespace: Kubectl) -> None:
    said = run(namespace, pod("worker", "echo I run", limits={"nvidia.com/gpu": "2"}))
    assert said == "I run\n"


def test_more_gpus_than_there_are_are_not_given(namespace: Kubectl) -> None:
    more = str(int(GPUS["nvidia.com/gpu"]) + 1)
    namespace.apply(pod("greedy", "true", limits={"nvidia.com/gpu": more}))
    namespace.wait(
        "pod/greedy",
        "jsonpath={.status.conditions[?(@.type=='PodScheduled')].reason}=Unschedulable",
    )
    [condition] = namespace.get("pod", "greedy")["status"]["conditions"]
    assert "Insufficient nvidia.com/gpu" in condition["message"]


def test_a_service_answers_by_its_name_and_from_here(namespace: Kubectl) -> None:
    serve = (
        "mkdir /tmp/www && echo hello > /tmp/www/index.html && exec httpd -f -p 8080 -h /tmp/www"
    )
    namespace.apply(pod("web", serve), _service("web", 8080))
    namespace.wait("pod/web", "Ready")
    namespace.wait(
        "endpointslice",
        "jsonpath={.endpoints[0].conditions.ready}=true",
        selector="kubernetes.io/service-name=web",
    )
    name = f"web.{namespace.namespace}.svc.cluster.local"
    # A static busybox looks names up with nslookup alone; its wget and nc need libraries for it.
    script = (
        f"address=$(nslookup {name} | sed -n 's/^Address: //p');"
        r"printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 10 $address 80 | tail -n 1"
    )
    assert run(namespace, pod("asks", script)) == "hello\n"
    address = namespace.get("service", "web")["spec"]["clusterIP"]
    assert httpx.get(f"http://{address}", trust_env=False).text == "hello\n"


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("part", ["kube-apiserver", "etcd", "kubelet", "containerd"])
def test_a_part_that_is_killed_can_be_started_again(
    cluster: Cluster, namespace: Kubectl, part: str
) -> None:
    namespace.apply(pod("lives", "echo once; exec sleep 1000"))
    namespace.wait("pod/lives", "Ready")
    cluster.kill(part)
    cluster.start(part)
    namespace.wait(f"node/{node.NAME}", "Ready")
    # A kubelet that has just begun knows its pods when it has started a new one.
    assert run(namespace, pod("new", "echo new", limits={"nvidia.com/gpu": "1"})) == "new\n"
    assert namespace("exec", "lives", "--", "echo", "again") == "again\n"


def _service(app: str, port: int) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": app},
        "spec": {"selector": {"app": app}, "ports": [{"port": 80, "targetPort": port}]},
    }
