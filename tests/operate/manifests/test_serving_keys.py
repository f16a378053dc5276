"""The Secret of a server's API keys: what is in it, what the pods see of it, and where a key never is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit19_ray.errors import OperateError
from kit19_ray.operate.api.spec import KitRunSpec, parse
from kit19_ray.operate.manifests import children, serving_keys
from kit19_ray.operate.manifests.naming import RunRef
from kit19_ray.serve import stage
from kit19_ray.serve.deployment import Arguments
from kit19_ray.serve.keys import ApiKeys

RUN = RunRef("demo", "default", "6f1c9b1e-0000-4000-8000-000000000001")


def spec(**more: Any) -> KitRunSpec:
    tree: dict[str, Any] = {"config": {"root": "s3://bucket/r", "serve": {"model": "s3://bucket/m"}}}
    return parse(tree | {"images": {"train": "kit19:1"}} | more, "demo")


def served(wanted: KitRunSpec) -> tuple[Arguments, list[dict[str, Any]]]:
    """The application's arguments, and the pod specs."""
    body = children.ray_service(RUN, wanted, {})["spec"]
    (application,) = yaml.safe_load(body["serveConfigV2"])["applications"]
    cluster = body["rayClusterConfig"]
    templates = [cluster["headGroupSpec"]["template"], *(g["template"] for g in cluster.get("workerGroupSpecs", []))]
    return Arguments.model_validate(application["args"]), [one["spec"] for one in templates]


def test_every_server_mounts_keys_as_a_folder_and_reads_them_from_there() -> None:
    made = serving_keys.secret(RUN, spec())
    arguments, pods = served(spec(stages={"serve": {"gpus": 1}}))
    assert made is not None and len(pods) == 2
    assert arguments.serve.auth == "keys" and arguments.serve.api_keys_file == "/etc/kit19-keys/api-keys"
    stage.check_access(arguments.serve, is_local=False)
    for pod in pods:
        (volume,) = [one for one in pod["volumes"] if one["name"] == "kit19-keys"]
        assert volume["secret"] == {
            "secretName": made["metadata"]["name"],
            "items": [{"key": "api-keys", "path": "api-keys"}],
        }
        (mount,) = [one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "kit19-keys"]
        assert mount == {"name": "kit19-keys", "mountPath": "/etc/kit19-keys", "readOnly": True}  # no subPath: renewed
    job = children.ray_job(RUN, spec(), "train", 0, {})
    assert "kit19-keys" not in json.dumps(job)


def test_the_file_has_the_hash_and_the_key_is_for_clients_only(tmp_path: Path) -> None:
    made = serving_keys.secret(RUN, spec())
    assert made is not None and made["metadata"]["ownerReferences"][0]["uid"] == RUN.uid
    assert "stringData" not in made and "data" not in made  # what is planned, logged and compared holds no key
    first, second = (serving_keys.with_a_key(made)["stringData"] for _ in range(2))
    assert first["key"] != second["key"] and len(first["key"]) > 40 and first["key"] not in first["api-keys"]
    file = tmp_path / "api-keys"
    file.write_text(first["api-keys"])
    keys = ApiKeys(str(file))
    assert keys.owner(first["key"]) == "kit19" and keys.owner(second["key"]) is None
    service = json.dumps(children.ray_service(RUN, spec(), {}))
    assert first["key"] not in service and "sha256:" not in service


def test_a_mounted_secret_that_changes_rotates_the_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kubelet renews a Secret's folder by setting a link anew: the file's name stays, all else is another one's."""
    from kit19_ray.serve import keys as module

    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.0)
    made = serving_keys.secret(RUN, spec()) or {}
    old, new = (serving_keys.with_a_key(made)["stringData"] for _ in range(2))
    for number, one in enumerate((old, new)):
        (tmp_path / f"..{number}").mkdir()
        (tmp_path / f"..{number}" / "api-keys").write_text(one["api-keys"])
    (tmp_path / "..data").symlink_to("..0")
    (tmp_path / "api-keys").symlink_to("..data/api-keys")
    keys = ApiKeys(str(tmp_path / "api-keys"))
    assert keys.owner(old["key"]) and not keys.owner(new["key"])
    (tmp_path / "..next").symlink_to("..1")
    (tmp_path / "..next").rename(tmp_path / "..data")
    assert keys.owner(new["key"]) == "kit19" and keys.owner(old["key"]) is None


def test_a_secret_of_one_s_own_is_mounted_and_none_is_made() -> None:
    wanted = spec(serve={"keysSecret": "mine"})
    assert serving_keys.secret(RUN, wanted) is None
    _, pods = served(wanted)
    assert [one["secret"]["secretName"] for one in pods[0]["volumes"] if "secret" in one] == ["mine"]


@pytest.mark.parametrize("section", [{"auth": "none"}, {"api_keys_file": "/mine/keys"}])
def test_open_by_its_own_word_or_by_a_file_of_its_own_it_mounts_none(section: dict[str, Any]) -> None:
    config = {"root": "s3://bucket/r", "serve": {"model": "s3://bucket/m", **section}}
    wanted = spec(config=config)
    arguments, pods = served(wanted)
    assert serving_keys.secret(RUN, wanted) is None and serving_keys.name(RUN, wanted) is None
    assert not [one for one in pods[0]["volumes"] if "secret" in one]
    assert arguments.serve.model_dump(exclude_defaults=True).items() >= section.items()
    with pytest.raises(OperateError, match="a Secret of keys exclude each other"):
        spec(config=config, serve={"keysSecret": "mine"})
