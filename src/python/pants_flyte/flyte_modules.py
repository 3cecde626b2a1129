"""The modules of Flyte's own distributions, for Pants' inference of requirements.

Pants takes `flyteplugins-ray` for a module `flyteplugins_ray`, unless a `module_mapping` says
otherwise. The table is read from the wheels on PyPI (2026-10). What Pants assumes of `flyte`,
`flyteidl2`, `flyteplugins-rs`, `union` and `unionai` is right.
"""

from __future__ import annotations

from typing import Dict, MutableMapping, Tuple

_PLUGINS = (
    *("anthropic", "bigquery", "clickup", "codegen", "connectors", "dask", "databricks", "dbt"),
    *("gemini", "github", "gitlab", "hitl", "huggingface", "hydra", "jira", "jsonl", "lance"),
    *("linear", "llamacpp", "mlflow", "nextflow", "omegaconf", "omlx", "openai", "otel"),
    *("pandera", "papermill", "polars", "pytorch", "ray", "sglang", "slack", "slurm"),
    *("snowflake", "spark", "trackio", "typesafe-ai", "union", "vllm", "wandb"),
    *("agents-claude", "agents-core", "agents-crewai", "agents-deepagents", "agents-google"),
    *("agents-hermes", "agents-langchain", "agents-langgraph", "agents-mistral"),
    *("agents-openai", "agents-pydantic-ai"),
)


def _module(plugin: str) -> str:
    package = "agents." if plugin.startswith("agents-") else ""
    return f"flyteplugins.{package}{plugin[len(package) :].replace('-', '_')}"


MODULES: Dict[str, Tuple[str, ...]] = {
    **{f"flyteplugins-{plugin}": (_module(plugin),) for plugin in _PLUGINS},
    "flyteplugins-hydra": ("flyteplugins.hydra", "hydra_plugins.hydra_flyte_launcher"),
}
"""The modules of a distribution, by its normalized name."""


def add_to(defaults: MutableMapping[str, Tuple[str, ...]]) -> None:
    """Add what is not in Pants' own table of defaults. `module_mapping` outweighs both."""
    for name, modules in MODULES.items():
        defaults.setdefault(name, modules)
