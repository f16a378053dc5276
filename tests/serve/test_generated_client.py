"""A client generated from /openapi.json: openapi-typescript's types, under TypeScript's strict check.

It fetches packages of npm, so it runs when asked for: KIT19_NPM=1.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from kit19_ray.serve import openapi

# Pinned: a newer release is tried on purpose.
PACKAGES = ["openapi-typescript@7.13.0", "openapi-fetch@0.17.0", "typescript@5.9.3"]
USE = """
import createClient from "openapi-fetch";
import type { paths } from "./api";

const client = createClient<paths>({ baseUrl: "http://127.0.0.1:8000", headers: { Authorization: "Bearer key" } });

export async function ask(): Promise<string> {
  const { data, error } = await client.POST("/v1/chat/completions", {
    body: { model: "kit19", messages: [{ role: "user", content: "안녕" }], max_tokens: 8 },
  });
  if (error) throw new Error(error.error.message);
  const choice = (data as { choices: { message: { content: string } }[] }).choices[0];
  return choice ? choice.message.content : "";
}

export async function swap(): Promise<"ready" | "loading" | "swapping" | "unloaded" | undefined> {
  const { data } = await client.PUT("/admin/models/{name}", {
    params: { path: { name: "kit19" } }, body: { root: "s3://b/m" },
  });
  return data?.state;
}

export async function names(): Promise<string[]> {
  const { data } = await client.GET("/v1/models");
  return (data?.data ?? []).map((model) => model.id);
}

// @ts-expect-error an unknown path is refused
client.GET("/v1/nothing");
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("KIT19_NPM"), reason="KIT19_NPM=1 fetches openapi-typescript from npm")
def test_openapi_typescript_makes_a_client_that_compiles(tmp_path: Path) -> None:
    npm = shutil.which("npm")
    assert npm, "KIT19_NPM is set, and there is no npm"
    (tmp_path / "openapi.json").write_text(json.dumps(openapi.document()))
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "use.ts").write_text(USE)

    def run(*words: str) -> None:
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr

    run(npm, "install", "--no-audit", "--no-fund", "--silent", *PACKAGES)
    tools = tmp_path / "node_modules" / ".bin"
    run(str(tools / "openapi-typescript"), "openapi.json", "-o", "api.d.ts", "--default-non-nullable", "false")
    options = "--noEmit --strict --skipLibCheck --target es2022 --module esnext --moduleResolution bundler"
    run(str(tools / "tsc"), *options.split(), "--lib", "es2022,dom", "use.ts")
    assert "post_admin_models" in (tmp_path / "api.d.ts").read_text()
