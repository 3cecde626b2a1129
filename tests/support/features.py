"""What task modules can ask of Flyte: a small module for each feature, for the requests that deploy them."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import dedent

from tests.support.control_plane import IMAGE
from tests.support.flyte_versions import MATRIX

HEAD = f"""\
from datetime import datetime, timedelta, timezone

import flyte

IMAGE = {IMAGE!r}
"""


@dataclass(frozen=True)
class Feature:
    """source: of a module with `env`, an environment of that kind. since: the first line of `MATRIX`
    that has it.
    """

    source: str
    since: str = MATRIX[0]
    kind: str = "environment"

    def is_in(self, line: str) -> bool:
        return _numbers(self.since) <= _numbers(line)

    @property
    def module(self) -> str:
        return f"{HEAD}{dedent(self.source)}"


def _numbers(line: str) -> list[int]:
    return [int(part) for part in line.split(".")]


FEATURES = {
    "plain": Feature(
        """
        env = flyte.TaskEnvironment(name="plain", image=IMAGE)

        @env.task
        async def work(n: int) -> int:
            return n

        @env.task
        def blocking() -> None:
            pass
        """
    ),
    "resources": Feature(
        """
        env = flyte.TaskEnvironment(
            name="resources",
            image=IMAGE,
            resources=flyte.Resources(cpu=(1, 2), memory=("1Gi", "2Gi"), gpu="T4:1", disk="10Gi", shm="auto"),
        )

        @env.task
        async def work() -> int:
            return 1
        """
    ),
    "devices": Feature(
        """
        env = flyte.TaskEnvironment(
            name="devices",
            image=IMAGE,
            resources=flyte.Resources(cpu="500m", gpu=flyte.GPU("A100", 2, partition="1g.5gb"), shm="1Gi"),
        )

        @env.task
        async def work() -> int:
            return 1
        """
    ),
    "secrets": Feature(
        """
        import pathlib

        env = flyte.TaskEnvironment(
            name="secrets",
            image=IMAGE,
            secrets=[
                flyte.Secret(key="token", as_env_var="TOKEN"),
                flyte.Secret(key="key", group="team", mount=pathlib.Path("/etc/flyte/secrets")),
            ],
        )
        by_name = flyte.TaskEnvironment(name="secret_by_name", image=IMAGE, secrets="token")
        env.add_dependency(by_name)

        @env.task
        async def work() -> int:
            return 1

        @by_name.task
        async def other() -> int:
            return 1
        """
    ),
    "environment": Feature(
        """
        env = flyte.TaskEnvironment(
            name="environment",
            image=IMAGE,
            description="What these tasks are for",
            env_vars={"B": "2", "A": "1"},
            interruptible=True,
            queue="gpu",
        )

        @env.task(interruptible=False, queue="cpu")
        async def calm() -> int:
            return 1

        @env.task
        async def eager() -> int:
            return 1
        """
    ),
    "service_account": Feature(
        """
        env = flyte.TaskEnvironment(name="service_account", image=IMAGE, service_account="trainer")

        @env.task(service_account="scorer")
        async def own() -> int:
            return 1

        @env.task
        async def work() -> int:
            return 1
        """,
        since="2.8",
    ),
    "include": Feature(
        """
        env = flyte.TaskEnvironment(name="include", image=IMAGE, include=("page.html",))

        @env.task
        async def work() -> int:
            return 1
        """
    ),
    "pod_template": Feature(
        """
        from kubernetes.client import V1Container, V1EnvVar, V1PodSpec, V1Toleration

        env = flyte.TaskEnvironment(
            name="pod_template",
            image=IMAGE,
            resources=flyte.Resources(cpu=1),
            secrets="token",
            pod_template=flyte.PodTemplate(
                primary_container_name="main",
                labels={"team": "ml"},
                annotations={"note": "b"},
                pod_spec=V1PodSpec(
                    containers=[
                        V1Container(name="main", env=[V1EnvVar(name="A", value="1")]),
                        V1Container(name="beside", image="proxy:1"),
                    ],
                    tolerations=[V1Toleration(key="gpu", operator="Exists")],
                    node_selector={"pool": "gpu"},
                ),
            ),
        )

        @env.task
        async def work() -> int:
            return 1

        @env.task(pod_template="small")
        async def named() -> int:
            return 1
        """
    ),
    "plugin_config": Feature(
        """
        import dataclasses

        import flyte.extend

        @dataclasses.dataclass
        class Cluster:
            workers: int

        class ClusterTask(flyte.extend.AsyncFunctionTaskTemplate):
            task_type = "cluster"
            plugin_config: Cluster

            def custom_config(self, context):
                return {"workers": self.plugin_config.workers, "project": context.project}

        flyte.extend.TaskPluginRegistry.register(Cluster, ClusterTask)
        env = flyte.TaskEnvironment(name="plugin_config", image=IMAGE, plugin_config=Cluster(3))

        @env.task
        async def work() -> int:
            return 1
        """
    ),
    "cache": Feature(
        """
        env = flyte.TaskEnvironment(name="cache", image=IMAGE, cache="auto")

        @env.task
        async def by_body(n: int) -> int:
            return n

        @env.task(cache=flyte.Cache(behavior="auto", salt="s", serialize=True, ignored_inputs=("n",)))
        async def salted(n: int, m: int = 2) -> int:
            return n

        @env.task(cache=flyte.Cache(behavior="override", version_override="v7"))
        async def versioned(n: int) -> int:
            return n

        @env.task(cache="disable")
        async def never() -> int:
            return 1
        """
    ),
    "cache_age": Feature(
        """
        env = flyte.TaskEnvironment(name="cache_age", image=IMAGE)

        @env.task(cache=flyte.Cache(behavior="auto", max_age=timedelta(days=1)))
        async def work() -> int:
            return 1
        """,
        since="2.8",
    ),
    "attempts": Feature(
        """
        env = flyte.TaskEnvironment(name="attempts", image=IMAGE)

        @env.task(retries=3, timeout=60)
        async def simple() -> int:
            return 1

        @env.task(
            retries=flyte.RetryStrategy(count=2, backoff=flyte.Backoff(base=timedelta(seconds=5), factor=2.0, cap=timedelta(minutes=1))),
            timeout=flyte.Timeout(max_runtime=60, max_queued_time=timedelta(minutes=5)),
        )
        async def careful() -> int:
            return 1
        """
    ),
    "texts": Feature(
        '''
        import flyte._doc

        env = flyte.TaskEnvironment(name="texts", image=IMAGE)

        @env.task(short_name="short", entrypoint=True, report=True, max_inline_io_bytes=1000, produces_artifacts=True)
        async def told(n: int, name: str = "a") -> tuple[int, str]:
            """Train a model.

            More of it, on a second paragraph.

            Args:
                n: how many
                name: of the model

            Returns:
                both
            """
            return n, name

        @env.task(docs=flyte._doc.Documentation(description="Given by name"))
        async def documented() -> int:
            """Not this one."""
            return 1
        '''
    ),
    "defaults": Feature(
        """
        import dataclasses
        import enum
        from typing import Optional

        from flyte.io import Dir, File

        class Color(enum.Enum):
            RED = "red"
            BLUE = "blue"

        @dataclasses.dataclass
        class Settings:
            rate: float = 0.5
            names: list[str] = dataclasses.field(default_factory=lambda: ["a"])

        env = flyte.TaskEnvironment(name="defaults", image=IMAGE)

        @env.task
        async def work(
            file: File,
            folder: Optional[Dir] = None,
            color: Color = Color.RED,
            settings: Settings = Settings(),
            when: datetime = datetime(2026, 1, 1, tzinfo=timezone.utc),
            many: list[int] = [1, 2],
            by_name: dict[str, float] = {"a": 1.0},
            long: str = "x" * 20_000,
            unset: Optional[int] = None,
        ) -> dict[str, list[int]]:
            return {}
        """
    ),
    "links": Feature(
        """
        import dataclasses

        @dataclasses.dataclass
        class Board:
            project: str
            name: str = "Board"
            icon_uri: str = "https://board.example/icon.svg"

            def get_link(self, run_name, project, domain, context, parent_action_name, action_name, pod_name, **_):
                return f"https://board.example/{self.project}/{project}/{domain}/{run_name}/{action_name}/{pod_name}"

        env = flyte.TaskEnvironment(name="links", image=IMAGE)

        @env.task(links=(Board("one"), Board("two", name="Second")))
        async def work() -> int:
            return 1
        """
    ),
    "triggers": Feature(
        """
        from flyte import notify
        from flyte.io import File
        from flyte.models import ActionPhase

        env = flyte.TaskEnvironment(name="triggers", image=IMAGE)
        mornings = flyte.Trigger(
            name="mornings",
            automation=flyte.Cron("0 6 * * 1-5", timezone="Europe/Berlin"),
            description="Each working day",
            inputs={"at": flyte.TriggerTime, "n": 3, "names": ["a", "b"]},
            env_vars={"STAGE": "daily"},
            labels={"team": "ml"},
            annotations={"note": "b"},
            interruptible=True,
            overwrite_cache=True,
            queue="night",
            max_action_concurrency=4,
            custom_context={"tenant": "a"},
            auto_activate=False,
            notifications=(
                notify.Email(on_phase=ActionPhase.FAILED, recipients=["oncall@example.com"]),
                notify.Slack(on_phase=ActionPhase.SUCCEEDED, webhook_url="https://hooks.example/x", message="done"),
            ),
        )
        often = flyte.Trigger(
            name="often",
            automation=flyte.FixedRate(30, start_time=datetime(2026, 1, 1, tzinfo=timezone.utc)),
            inputs={"n": 1},
        )

        @env.task(triggers=(mornings, often, flyte.Trigger.daily()))
        async def work(trigger_time: datetime, at: datetime, n: int, names: list[str] = ["c"]) -> int:
            return n

        published = flyte.Trigger(
            name="published",
            automation=flyte.OnArtifact("model", version="v1"),
            inputs={"model": flyte.TriggeredArtifact},
        )

        @env.task(triggers=published)
        async def react(model: File) -> int:
            return 1
        """
    ),
    "reusable": Feature(
        """
        env = flyte.TaskEnvironment(
            name="reusable",
            image=IMAGE,
            resources=flyte.Resources(cpu=1),
            reusable=flyte.ReusePolicy(replicas=(1, 4), idle_ttl=60, concurrency=2, scaledown_ttl=timedelta(minutes=1)),
        )
        again = env.clone_with("reusable_again", reusable=None, depends_on=[env])

        @env.task
        async def work() -> int:
            return 1

        @env.task
        async def second() -> int:
            return 2

        @again.task
        async def alone() -> int:
            return 1

        env = again
        """
    ),
    "clustered": Feature(
        """
        from flyte.clustered import ClusteredTaskEnvironment, ClusterFailurePolicy, TorchRun

        env = ClusteredTaskEnvironment(
            name="clustered",
            image=IMAGE,
            replicas=2,
            nproc_per_node=4,
            runtime=TorchRun(rdzv_backend="c10d", max_restarts=2),
            failure_policy=ClusterFailurePolicy(max_restarts=1, restart_on_host_maintenance=True),
            ttl_seconds_after_finished=60,
        )

        @env.task
        async def work() -> int:
            return 1
        """
    ),
    "clustered_jax": Feature(
        """
        from flyte.clustered import ClusteredTaskEnvironment, JaxRun

        env = ClusteredTaskEnvironment(
            name="clustered_jax", image=IMAGE, replicas=2, nproc_per_node=1, runtime=JaxRun()
        )

        @env.task
        async def work() -> int:
            return 1
        """,
        since="2.12",
    ),
    "container": Feature(
        """
        from flyte.extras import ContainerTask

        greet = ContainerTask(
            name="greet",
            image="alpine:3.18",
            outputs={"said": str},
            output_data_dir="/out",
            metadata_format="YAML",
            command=["sh", "-c", "echo hello > /out/said"],
            resources=flyte.Resources(cpu=1, memory="1Gi"),
            retries=2,
        )
        env = flyte.TaskEnvironment.from_task("containers", greet)
        """
    ),
    # Flyte's own deploy refuses one before.
    "container_inputs": Feature(
        """
        from flyte.extras import ContainerTask

        add = ContainerTask(
            name="add",
            image="alpine:3.18",
            inputs={"name": str, "n": int},
            outputs={"sum": int},
            input_data_dir="/in",
            output_data_dir="/out",
            command=["sh", "-c", "expr {{.inputs.n}} + 1 > /out/sum"],
            arguments=["{{.inputs.name}}"],
        )
        env = flyte.TaskEnvironment.from_task("container_inputs", add)
        """,
        since="2.12",
    ),
    "connector": Feature(
        """
        import flyte.extend
        from flyte.models import NativeInterface

        # What a connector's mixin adds is for local runs, and takes grpc.
        class Query(flyte.extend.TaskTemplate):
            def custom_config(self, context):
                return {"statement": "SELECT {{.inputs.n}}", "domain": context.domain}

        query = Query(
            name="query",
            interface=NativeInterface({"n": (int, 3)}, {"rows": int}),
            task_type="some_warehouse",
            image=None,
        )
        env = flyte.TaskEnvironment.from_task("queries", query)
        """
    ),
    "depends_on": Feature(
        """
        from flyte.extras import ContainerTask

        leaf = flyte.TaskEnvironment(name="leaf", image=IMAGE, env_vars={"LEAF": "1"})
        step = flyte.TaskEnvironment.from_task(
            "steps", ContainerTask(name="step", image="alpine:3.18", command=["sh", "-c", "true"])
        )
        middle = flyte.TaskEnvironment(name="middle", image="registry.example/other:2", depends_on=[leaf])
        env = flyte.TaskEnvironment(name="top", image=IMAGE, depends_on=[leaf, middle, step])

        @flyte.trace
        async def traced(n: int) -> int:
            return n

        @leaf.task
        async def double(n: int = 2) -> int:
            return 2 * n

        @middle.task
        async def twice(n: int) -> int:
            return await double(n)

        @env.task
        async def all_of_it(n: int) -> int:
            return await twice(await traced(n))
        """
    ),
    "app": Feature(
        """
        import flyte.app

        tasks = flyte.TaskEnvironment(name="app_tasks", image=IMAGE)
        env = flyte.app.AppEnvironment(
            name="app",
            image=IMAGE,
            description="What it is for",
            resources=flyte.Resources(cpu=1),
            env_vars={"B": "2", "A": "1"},
            secrets=[flyte.Secret(key="token", as_env_var="TOKEN")],
            scaling=flyte.app.Scaling(replicas=(0, 2)),
            include=("page.html",),
            depends_on=[tasks],
        )

        @env.server
        def serve():
            pass

        @tasks.task
        async def work() -> int:
            return 1
        """,
        kind="app",
    ),
    "app_command": Feature(
        """
        import flyte.app

        env = flyte.app.AppEnvironment(
            name="app-command",
            image=IMAGE,
            args="python -m http.server '8080'",
            parameters=[flyte.app.Parameter(name="word", value="a b", env_var="WORD")],
            requires_auth=False,
        )
        """,
        kind="app",
    ),
}
