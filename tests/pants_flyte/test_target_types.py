"""The fields of the targets: help that a stranger can act on, and values that can't be meant."""

from __future__ import annotations

import ast
import re

import pytest
from pants.build_graph.address import Address
from pants.engine.internals.scheduler import ExecutionError
from pants.option import option_types
from pants.util.strutil import strval

from pants_flyte.register import target_types
from pants_flyte.subsystem import FlytePackSubsystem, FlyteSubsystem
from pants_flyte.target_types import FlyteTaskBundleField
from tests.support.flyte_rules import RuleRoot

# Later versions have other names for both.
OPTION = getattr(option_types, "OptionInfo", None) or option_types.OptionsInfo
SETTINGS = "kwargs" if hasattr(option_types, "OptionInfo") else "flag_options"

TARGETS = list(target_types())
FIELDS = sorted(
    {field for target in TARGETS for field in target.core_fields},
    key=lambda field: (field.alias, field.__module__, field.__qualname__),
)
OURS = [field for field in FIELDS if field.__module__.startswith("pants_flyte")]

TASK = "env = flyte.TaskEnvironment('e')\n@env.task\ndef train(): ...\n"


# --- help -----------------------------------------------------------------------------------------


def test_the_targets_are_those_that_are_promised():
    promised = {
        *("flyte_app", "flyte_base_image", "flyte_bundle", "flyte_deployment", "flyte_image"),
        *("flyte_task", "flyte_tasks"),
    }
    assert {t.alias for t in TARGETS} == promised
    assert len(TARGETS) == len(promised)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.__name__)
def test_every_field_has_help(field):
    assert len(strval(field.help).split()) > 5


@pytest.mark.parametrize("field", OURS, ids=lambda field: field.__name__)
def test_every_field_of_our_own_has_help_of_its_own(field):
    assert "help" in vars(field)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.alias)
def test_every_target_shows_an_example_that_uses_fields_it_has(target):
    text = strval(target.help)
    (example,) = re.findall(
        rf"^ *{target.alias}\([^\n]*\)$|^ *{target.alias}\(\n.*?^ *\)$",
        text,
        re.DOTALL | re.MULTILINE,
    )
    call = ast.parse(example.strip()).body[0].value
    every = (*target.core_fields, *getattr(target, "moved_fields", ()))
    fields = {field.alias for field in every} | {"name"}
    used = {keyword.arg for keyword in call.keywords}
    assert used <= fields
    assert {field.alias for field in target.core_fields if field.required} <= used


@pytest.mark.parametrize("subsystem", [FlyteSubsystem, FlytePackSubsystem])
def test_every_option_has_help(subsystem):
    assert len(strval(subsystem.help).split()) > 5
    found = [getattr(subsystem, name) for name in vars(subsystem)]
    options = [option for option in found if isinstance(option, OPTION)]
    assert options
    for option in options:
        assert len(strval(getattr(option, SETTINGS)["help"]).split()) > 5


# --- values ---------------------------------------------------------------------------------------


def build(fields: str, kind: str = "flyte_task") -> dict[str, str]:
    required = {
        "flyte_task": "entry_point='w.py:train'",
        "flyte_bundle": "dependencies=['./w.py']",
        "flyte_deployment": "tasks=[':x']",
        "flyte_image": "" if "base" in fields else "base=':base'",
        "flyte_base_image": "source='host'",
    }[kind]
    return {
        "app/BUILD": f"python_sources()\n{kind}(name='t', **dict({required}), **dict({fields}))",
        "app/w.py": TASK,
    }


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("flyte_task", "copy_style='some'", r"must be one of \['all', 'auto', 'none'\]"),
        ("flyte_bundle", "copy_style='none'", r"must be one of \['all', 'auto'\]"),
        ("flyte_deployment", "copy_style='some'", r"must be one of \['all', 'auto', 'none'\]"),
        (
            "flyte_task",
            "bundle=[':a', ':b']",
            'takes one, such as `bundle=":bundle"`; it has 2',
        ),
        ("flyte_task", "bundle=[]", 'takes one, such as `bundle=":bundle"`; it has 0'),
        ("flyte_task", "image=3", "'image' field in target app:t must be an iterable of strings"),
        ("flyte_task", "image=['a', 'b']", 'takes one, such as `image=":image"`; it has 2'),
        ("flyte_image", "base=[]", 'takes one, such as `base=":base"`; it has 0'),
        ("flyte_image", "bytecode='yes'", "'bytecode' field in target app:t must be a boolean"),
        (
            "flyte_base_image",
            "platforms='linux/amd64'",
            "'platforms' field in target app:t must be an iterable",
        ),
        ("flyte_deployment", "images=['x']", "'images' field in target app:t must be"),
    ],
)
def test_a_value_that_cant_be_meant_is_refused_with_the_target(
    root: RuleRoot, kind, fields, message
):
    root.write(build(fields, kind))
    with pytest.raises(ExecutionError, match=message) as caught:
        root.target("app:t")
    assert "app:t" in str(caught.value) or "app/BUILD" in str(caught.value)


@pytest.mark.parametrize(
    ("call", "missing"),
    [
        ("flyte_task(name='t')", "entry_point"),
        ("flyte_bundle(name='t')", "dependencies"),
        ("flyte_deployment(name='t')", "tasks"),
        ("flyte_image(name='t')", "base"),
    ],
)
def test_a_field_that_is_needed_is_asked_for(root: RuleRoot, call, missing):
    root.write({"app/BUILD": call})
    with pytest.raises(
        ExecutionError, match=f"['`]{missing}['`] field in target app:t must be defined"
    ):
        root.target("app:t")


def test_one_bundle_may_be_given_without_brackets(root: RuleRoot):
    root.write(build("bundle=':code'"))
    assert root.target("app:t")[FlyteTaskBundleField].value == (":code",)


# --- copy_style -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "field", "style"),
    [
        ("", "", "auto"),
        ("auto", "copy_style='all'", "all"),
        ("all", "", "all"),
        ("all", "copy_style='auto'", "auto"),
        ("none", "", "none"),
        ("none", "copy_style='auto'", "auto"),
        ("all", "copy_style='none'", "none"),
    ],
)
def test_a_task_has_the_copy_style_of_its_field_and_else_of_the_option(
    root: RuleRoot, option, field, style
):
    if option:
        root.options(f"--flyte-copy-style={option}")
    root.write(build(field))
    packaged = root.package("app:t")
    assert packaged.link.copy_style == style
    assert (packaged.link.bundle is None) == (style == "none")
    assert ("app/t.tar.gz" in packaged.artifacts) == (style != "none")
    for task in packaged.link.tasks:
        assert ("--tgz" in task.command) == (style != "none")


def test_a_bundle_target_makes_a_bundle_even_where_tasks_make_none(root: RuleRoot):
    root.options("--flyte-copy-style=none")
    root.write(build("", "flyte_bundle"))
    assert root.bundle("app:t").manifest.copy_style == "auto"


def test_a_copy_style_option_that_is_none_of_the_three_is_refused(root: RuleRoot):
    root.options("--flyte-copy-style=some")
    root.write(build(""))
    assert "app:t: `[flyte].copy_style` is 'some'; it is one of auto, all, none." in root.refusal(
        "app:t"
    )


# --- image ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ("ghcr.io/org/trainer:2026.1", True),
        ("trainer:1", True),
        ("localhost:5000/trainer", True),
        ("org/trainer@sha256:" + "0" * 64, True),
        ("trainer", False),
        ("trainer-gpu.v2", False),
    ],
)
def test_an_image_is_a_reference_or_the_name_of_one(root: RuleRoot, image, reference):
    root.write(build(f"image={image!r}"))
    link = root.package("app:t").link
    assert (link.image, link.image_is_reference) == (image, reference)


def test_a_task_may_have_no_image(root: RuleRoot):
    root.write(build(""))
    assert root.package("app:t").link.image is None


@pytest.mark.parametrize(
    "image",
    [
        *("", " ", "my image", "https://ghcr.io/org/trainer", "ghcr.io/Org/Trainer:1"),
        *("org/trainer@sha256:0", "user:secret@ghcr.io/org/trainer", "trainer/", "größe"),
    ],
)
def test_an_image_that_is_neither_is_refused(root: RuleRoot, image):
    root.write(build(f"image={image!r}"))
    message = root.refusal("app:t")
    assert message.startswith("app:t: `image` ")
    assert "secret" not in message


@pytest.mark.parametrize("image", [":img", "//app:img", "Org/Trainer:1", "org/trainer:1"])
def test_an_address_of_nothing_is_refused_with_the_field(root: RuleRoot, image):
    root.write(build(f"image={image!r}"))
    with pytest.raises(ExecutionError, match="from the `image` from the target app:t"):
        root.package("app:t")


# --- output_path ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "output_path", "written"),
    [
        ("flyte_task", None, ["app/t.json", "app/t.manifest.json", "app/t.tar.gz"]),
        ("flyte_bundle", None, ["app/t.manifest.json", "app/t.tar.gz"]),
        ("flyte_task", "x.json", ["x.json", "x.manifest.json", "x.tar.gz"]),
        ("flyte_task", "a b/-x.1.json", ["a b/-x.1.json", "a b/-x.1.manifest.json", "a b/-x.1.tar.gz"]),
        ("flyte_bundle", "deep/er/x.tar.gz", ["deep/er/x.manifest.json", "deep/er/x.tar.gz"]),
    ],
)  # fmt: skip
def test_artifacts_lie_beside_one_another(root: RuleRoot, kind, output_path, written):
    root.write(build(f"output_path={output_path!r}", kind))
    assert sorted(root.package("app:t").artifacts) == written


def test_the_default_path_is_that_of_the_build_file_with_dots(root: RuleRoot):
    root.write(
        {
            "a/b-c/BUILD": "python_sources()\nflyte_task(name='t', entry_point='w.py:train')",
            "a/b-c/w.py": TASK,
        }
    )
    link = root.package("a/b-c:t").link
    assert link.module == "a.b-c.w"
    assert link.bundle is not None
    assert link.bundle.archive == "a.b-c/t.tar.gz"


@pytest.mark.parametrize(("directory", "file"), [("v1.2", "w.py"), ("app", "w.v2.py")])
def test_an_entry_point_that_no_import_can_name_is_refused(root: RuleRoot, directory, file):
    build_file = f"python_sources()\nflyte_task(name='t', entry_point='{file}:train')"
    root.write({f"{directory}/BUILD": build_file, f"{directory}/{file}": TASK})
    message = root.refusal(f"{directory}:t")
    assert (
        f"the entry point is at {directory}/{file} in the bundle, and no module can be" in message
    )


def test_a_directory_that_no_import_can_name_may_be_the_root(root: RuleRoot):
    build_file = "python_sources()\nflyte_task(name='t', entry_point='w.py:train', root_dir='v1.2')"
    root.write({"v1.2/BUILD": build_file, "v1.2/w.py": TASK})
    assert root.package("v1.2:t").link.module == "w"


@pytest.mark.parametrize(
    ("kind", "output_path", "message"),
    [
        ("flyte_task", "x.tar.gz", "`output_path` is 'x.tar.gz'; it must end in `.json`."),
        ("flyte_bundle", "x.json", "`output_path` is 'x.json'; it must end in `.tar.gz`."),
        ("flyte_bundle", "x.tgz", "`output_path` is 'x.tgz'; it must end in `.tar.gz`."),
        ("flyte_task", "json", "`output_path` is 'json'; it must end in `.json`."),
        ("flyte_task", "/etc/x.json", "`output_path` is an absolute path"),
        ("flyte_task", "../x.json", "`output_path` is a '..' in the path"),
        ("flyte_bundle", "a/../../x.tar.gz", "`output_path` is a '..' in the path"),
        ("flyte_bundle", "[x].tar.gz", "`output_path` is a path with one of the characters `*?[!`"),
        (
            "flyte_task",
            "-x.json",
            "`output_path` is a path that begins with `-`, as an option does",
        ),
        ("flyte_bundle", "--plan/x.tar.gz", "`output_path` is a path that begins with `-`"),
    ],
)
def test_an_output_path_has_its_ending_and_stays_below_the_distdir(
    root: RuleRoot, kind, output_path, message
):
    root.write(build(f"output_path={output_path!r}", kind))
    assert message in root.refusal("app:t")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("output_path='a\\nb.json'", "`output_path` field in target app:t holds a control character, U+000A"),
        ("root_dir='a\\0--bind'", "`root_dir` field in target app:t holds a NUL"),
        ("entry_point='w.py:\\x1b[2J'", "`entry_point` field in target app:t holds a control character, U+001B"),
        ("image='\\ud800'", "`image` field in target app:t holds U+D800, which is not a character"),
        ("tags=['a\\nb']", "`tags` field in target app:t holds a control character, U+000A"),
        ("description='a\\0'", "`description` field in target app:t holds a NUL"),
        ("bundle='//' + 'a' * 131072", "`bundle` field in target app:t is longer than 131,071 bytes"),
    ],
)  # fmt: skip
def test_a_field_holds_words(root: RuleRoot, fields, message):
    root.write(
        {"app/BUILD": f"flyte_task(name='t', **{{'entry_point': 'w.py:t', **dict({fields})}})"}
    )
    with pytest.raises(ExecutionError) as caught:
        root.target("app:t")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("directory", "name", "message"),
    [
        ("app", "a\nb", r"The address 'app:a\nb' holds a control character, U+000A."),
        ("-app", "t", "The address '-app:t' begins with `-`, as an option does."),
    ],
)
def test_an_address_is_a_word(root: RuleRoot, directory, name, message):
    root.write({f"{directory}/BUILD": f"flyte_task(name={name!r}, entry_point='w.py:t')"})
    with pytest.raises(ExecutionError) as caught:
        root.runner.get_target(Address(directory, target_name=name))
    assert message in str(caught.value)


def test_a_description_may_have_lines(root: RuleRoot):
    root.write({"app/BUILD": "flyte_task(name='t', entry_point='w.py:t', description='a\\n\\tb')"})
    assert root.target("app:t")


# --- parametrize ----------------------------------------------------------------------------------


def test_one_task_in_two_styles(root: RuleRoot):
    root.write(build("copy_style=parametrize('auto', 'none')"))
    assert sorted(root.package("app:t@copy_style=auto").artifacts) == [
        "app/t@copy_style=auto.json",
        "app/t@copy_style=auto.manifest.json",
        "app/t@copy_style=auto.tar.gz",
    ]
    none = root.package("app:t@copy_style=none")
    assert list(none.artifacts) == ["app/t@copy_style=none.json"]
    assert none.link.address == "app:t@copy_style=none"


def test_one_task_for_each_entry_point(root: RuleRoot):
    root.write(
        {
            "app/BUILD": """
                python_sources()
                flyte_task(name="t", entry_point=parametrize(a="w.py:train", b="v.py:train"))
                """,
            "app/w.py": TASK,
            "app/v.py": TASK,
        }
    )
    assert root.bundle("app:t@entry_point=a").paths == {"app/w.py"}
    assert root.bundle("app:t@entry_point=b").paths == {"app/v.py"}
