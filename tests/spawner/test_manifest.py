"""From a launch to the pod that the API server is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from traitlets import TraitError

from gpudev_spawner.kube import GpuDevKubeSpawner
from gpudev_spawner.manifest import DEVICE_VARIABLES
from gpudev_spawner.refusals import SpawnRefused

from . import pods
from .pods import KEY, env, launch, manifest, plan


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def make(given: Any = None, **traits: Any) -> GpuDevKubeSpawner:
        return pods.spawner(monkeypatch, tmp_path, given, **traits)

    return make


async def test_a_pod_is_placed_where_it_was_planned_with_what_was_reserved(made: Any) -> None:
    pod = await manifest(made(launch(plan(claim="gpudev-disk"))))
    assert pod["metadata"]["name"] == f"gpudev-{KEY}-0"
    labels = pod["metadata"]["labels"]
    assert labels["hub.jupyter.org/gpudev-reservation"] == KEY
    assert labels["hub.jupyter.org/gpudev-rank"] == "0"
    assert labels["component"] == "singleuser-server"
    required = pod["spec"]["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    assert required["nodeSelectorTerms"] == [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["gpu-1"]}]}
    ]
    assert "nodeName" not in pod["spec"]
    main = pod["spec"]["containers"][0]
    assert main["resources"]["requests"] == {
        "cpu": "11500m",
        "memory": str(64 * 2**30),
        "nvidia.com/gpu": "2",
    }
    assert main["resources"]["limits"] == {"memory": str(64 * 2**30), "nvidia.com/gpu": "2"}
    assert main["args"] == ["jupyterhub-singleuser"]
    assert main["workingDir"] == "/home/jovyan"
    assert claims(pod) == {"gpudev-home": "gpudev-disk"}
    mounts = {one["mountPath"]: one["name"] for one in main["volumeMounts"]}
    assert mounts["/home/jovyan"] == "gpudev-home"
    assert mounts["/dev/shm"] == "gpudev-memory"  # noqa: S108
    assert env(main)["GPUDEV_POD"] == "1"


async def test_without_a_disk_the_home_can_be_written(made: Any) -> None:
    pod = await manifest(made(launch(plan())))
    home = next(one for one in pod["spec"]["volumes"] if one["name"] == "gpudev-home")
    assert home["emptyDir"] == {}


async def test_a_pod_keeps_to_the_restricted_profile(made: Any) -> None:
    pod = await manifest(
        made(
            launch(plan()),
            init_containers=[{"name": "before", "image": "b"}],
            extra_containers=[{"name": "beside", "image": "s"}],
        )
    )
    spec = pod["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not any("hostPath" in one for one in spec["volumes"])
    for container in [*spec["containers"], *spec["initContainers"]]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "privileged" not in context
    main = spec["containers"][0]["securityContext"]
    assert main["readOnlyRootFilesystem"] is True
    assert main["runAsUser"] == 1000
    written = {one["mountPath"] for one in spec["containers"][0]["volumeMounts"]}
    assert {"/tmp", "/var/tmp", "/home/jovyan"} <= written  # noqa: S108


async def test_a_root_that_can_be_written_is_the_operators_choice(made: Any) -> None:
    pod = await manifest(made(launch(plan()), read_only_root=False))
    main = pod["spec"]["containers"][0]
    assert "readOnlyRootFilesystem" not in main["securityContext"]
    assert "/tmp" not in {one["mountPath"] for one in main["volumeMounts"]}  # noqa: S108


async def test_only_a_type_for_profiling_adds_a_capability(made: Any) -> None:
    pod = await manifest(made(launch(plan(profiling=True))))
    context = pod["spec"]["containers"][0]["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"], "add": ["SYS_ADMIN"]}
    assert context["allowPrivilegeEscalation"] is True


async def test_nobody_chooses_devices_but_the_device_plugin(made: Any) -> None:
    wide = dict.fromkeys(DEVICE_VARIABLES, "all")
    spawner = made(
        launch(plan(), NVIDIA_VISIBLE_DEVICES="0,1", CUDA_VISIBLE_DEVICES="0,1"),
        environment={**wide, "MINE": "kept"},
        extra_resource_limits={"nvidia.com/gpu": "8", "rdma/hca": "1"},
        extra_resource_guarantees={"nvidia.com/gpu": "8", "nvidia.com/mig-1g.10gb": "1"},
        extra_containers=[{"name": "beside", "image": "s"}],
        extra_container_config={"env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]},
    )
    main, beside = (await manifest(spawner))["spec"]["containers"]
    assert not DEVICE_VARIABLES & set(env(main))
    assert env(beside)["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert main["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert main["resources"]["limits"]["rdma/hca"] == "1"
    assert "nvidia.com/mig-1g.10gb" not in main["resources"]["requests"]


async def test_a_pod_without_gpus_sees_none_whatever_its_image_asks_for(made: Any) -> None:
    pod = await manifest(made(launch(plan(resource=None, count=0))))
    main = pod["spec"]["containers"][0]
    assert env(main)["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert not any("nvidia" in key for key in main["resources"]["limits"])


async def test_a_slice_is_asked_for_by_its_own_name(made: Any) -> None:
    pod = await manifest(made(launch(plan(resource="nvidia.com/mig-1g.10gb", count=3))))
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == "3"


async def test_what_operators_configure_stays(made: Any) -> None:
    spawner = made(
        launch(
            plan(
                tolerations=[{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
                node_selector={"pool": "gpu"},
                runtime_class="nvidia",
            )
        ),
        tolerations=[{"key": "lab", "operator": "Exists"}],
        node_selector={"zone": "a"},
        node_affinity_required=[
            {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
        ],
        extra_annotations={"team": "vision"},
        extra_labels={"team": "vision"},
        volumes=[
            {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "homes", "persistentVolumeClaim": {"claimName": "old-home"}},
        ],
        volume_mounts=[
            {"name": "data", "mountPath": "/data"},
            {"name": "homes", "mountPath": "/home/jovyan"},
        ],
        cpu_limit=16,
        extra_pod_config={"dnsPolicy": "ClusterFirst"},
    )
    pod = await manifest(spawner)
    spec, main = pod["spec"], pod["spec"]["containers"][0]
    assert {one["key"] for one in spec["tolerations"]} == {"lab", "gpu"}
    assert spec["nodeSelector"] == {"zone": "a", "pool": "gpu"}
    assert spec["runtimeClassName"] == "nvidia"
    terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    [term] = terms["nodeSelectorTerms"]
    assert term["matchExpressions"][0]["key"] == "disk"
    assert term["matchFields"][0]["values"] == ["gpu-1"]
    assert pod["metadata"]["annotations"]["team"] == "vision"
    assert pod["metadata"]["labels"]["team"] == "vision"
    assert spec["dnsPolicy"] == "ClusterFirst"
    assert float(main["resources"]["limits"]["cpu"]) == 16
    mounts = [one["mountPath"] for one in main["volumeMounts"]]
    assert mounts.count("/home/jovyan") == 1
    assert "/data" in mounts
    # A home that the disk takes the place of is not attached for nothing.
    assert "homes" not in {one["name"] for one in spec["volumes"]}


async def test_a_limit_below_the_guarantee_gives_way(made: Any) -> None:
    pod = await manifest(made(launch(plan(cpus=8)), cpu_limit=2))
    assert "cpu" not in pod["spec"]["containers"][0]["resources"]["limits"]


async def test_an_image_of_ones_own_is_for_this_launch(made: Any) -> None:
    spawner = made(launch(plan(image="ghcr.io/lab/torch:2")))
    pod = await manifest(spawner)
    main = pod["spec"]["containers"][0]
    assert main["image"] == env(main)["JUPYTER_IMAGE"] == "ghcr.io/lab/torch:2"
    spawner._launch = launch(plan())
    assert (await manifest(spawner))["spec"]["containers"][0]["image"] == "gpudev/singleuser:1"


async def test_the_profile_of_the_gpu_type_is_applied(made: Any) -> None:
    profiles = [
        {"display_name": "Usual", "default": True, "kubespawner_override": {"image": "usual:1"}},
        {
            "display_name": "H100",
            "slug": "h100",
            "kubespawner_override": {"image": "hopper:1"},
            "profile_options": {
                "image": {
                    "display_name": "Image",
                    "choices": {"one": {"kubespawner_override": {"environment": {"A": "1"}}}},
                }
            },
        },
    ]
    spawner = made(launch(plan()), profile_list=profiles)
    # An option of the reservation that is called like one of the profile is not its choice.
    spawner.user_options = {"gpu_type": "h100", "image": "ghcr.io/evil/x:1"}
    await spawner.load_user_options()
    assert (spawner.image, spawner.environment["A"]) == ("hopper:1", "1")
    assert spawner.user_options["image"] == "ghcr.io/evil/x:1"
    other = launch(plan())
    other.reservation.gpu_type = "t4"
    spawner = made(other, profile_list=profiles)
    await spawner.load_user_options()
    assert spawner.image == "usual:1"


async def test_what_the_operator_says_is_not_undone(made: Any) -> None:
    pod = await manifest(
        made(
            launch(plan()),
            automount_service_account_token=True,
            container_security_context={"capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}},
            init_containers=[
                {"name": "net", "image": "n", "securityContext": {"privileged": True}}
            ],
        )
    )
    assert pod["spec"]["automountServiceAccountToken"] is True
    main = pod["spec"]["containers"][0]["securityContext"]
    assert main["capabilities"]["add"] == ["CHOWN"]
    assert pod["spec"]["initContainers"][0]["securityContext"] == {"privileged": True}


async def test_the_service_is_reached_from_the_inside_where_that_is_said(made: Any) -> None:
    pod = await manifest(made(launch(plan()), service_url_in_pods="http://gpudev:10101/s/"))
    assert env(pod["spec"]["containers"][0])["GPUDEV_URL"] == "http://gpudev:10101/s"


async def test_a_service_without_pods_is_told_in_words(made: Any) -> None:
    spawner = made(launch(None))
    with pytest.raises(SpawnRefused, match="not set up for servers as pods"):
        await spawner.apply_launch(launch(None))


async def test_one_namespace_for_servers_and_disks(made: Any) -> None:
    with pytest.raises(TraitError, match="one namespace"):
        made(None, enable_user_namespaces=True)


# --- several nodes ----------------------------------------------------------------------------


def claims(pod: dict[str, Any]) -> dict[str, str]:
    """The claims that a pod mounts, by volume."""
    return {
        one["name"]: one["persistentVolumeClaim"]["claimName"]
        for one in pod["spec"]["volumes"]
        if "persistentVolumeClaim" in one
    }


async def test_pods_of_several_nodes_know_each_other(made: Any) -> None:
    several = plan(nodes=["gpu-1", "gpu-2"], count=8, claim="gpudev-disk", shared_claim="all")
    spawner = made(launch(several))
    first, second = [await manifest(spawner, rank) for rank in (0, 1)]
    for rank, pod in enumerate((first, second)):
        spec = pod["spec"]
        assert spec["hostname"] == f"rank-{rank}"
        assert spec["subdomain"] == f"gpudev-{KEY}"
        here = env(spec["containers"][0])
        assert here["MASTER_ADDR"] == f"rank-0.gpudev-{KEY}"
        assert (here["RANK"], here["NODE_RANK"]) == (str(8 * rank), str(rank))
        assert (here["WORLD_SIZE"], here["NNODES"], here["LOCAL_WORLD_SIZE"]) == ("16", "2", "8")
        mounts = {one["mountPath"]: one for one in spec["containers"][0]["volumeMounts"]}
        assert mounts["/run/gpudev/ssh"]["readOnly"] is True
        assert mounts["/etc/ssh/ssh_config.d/20-gpudev.conf"]["subPath"] == "ssh_config"
        assert mounts["/shared"]["name"] == "gpudev-shared"
    assert second["metadata"]["name"] == f"gpudev-{KEY}-1"
    # The disk is rank 0's home; a worker's home is empty.
    assert claims(first) == {"gpudev-home": "gpudev-disk", "gpudev-shared": "all"}
    assert claims(second) == {"gpudev-shared": "all"}
    for pod in (first, second):
        [main, *_] = pod["spec"]["containers"]
        mounts = {one["mountPath"]: one["name"] for one in main["volumeMounts"]}
        assert mounts["/home/jovyan"] == "gpudev-home"
    [home] = [one for one in second["spec"]["volumes"] if one["name"] == "gpudev-home"]
    assert home["emptyDir"] == {}
    worker = second["spec"]["containers"][0]
    assert worker["name"] == "worker"
    assert worker["command"] == ["python3", "-m", "gpudev_lab.sshd.worker"]
    assert not any(name.startswith("JUPYTERHUB_") for name in env(worker))
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "8"


async def test_a_pod_alone_has_nothing_of_several(made: Any) -> None:
    pod = await manifest(made(launch(plan())))
    assert "hostname" not in pod["spec"]
    assert "MASTER_ADDR" not in env(pod["spec"]["containers"][0])
