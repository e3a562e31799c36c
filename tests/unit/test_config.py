"""Configuration files and settings: what is refused, and in which words."""

from pathlib import Path

import pytest

from dynens.batch import FeatureLayout, SparseField
from dynens.config.base import apply_overrides, load_yaml, validate
from dynens.config.learner import LearnerConfig
from dynens.config.run import RunConfig, load_run_config
from dynens.errors import ConfigError


def test_random_features_need_a_last_layer_of_their_own() -> None:
    for model, units in (("ipnn", (8,)), ("dnn", ())):
        with pytest.raises(ValueError, match="random_features is on but model is"):
            LearnerConfig(model=model, hidden_units=units, random_features=True)


def test_settings_are_laid_over_nested_keys_as_yaml_values() -> None:
    data = apply_overrides(
        {"router": {"tolerance_auc": 0.1}},
        ["router.hard_fraction=0.2", "distill.augmentations=[]", "seed=7"],
    )
    config = validate(RunConfig, data, "settings")
    assert config.router.hard_fraction == 0.2
    assert config.router.tolerance_auc == 0.1
    assert config.distill.augmentations == ()
    assert config.seed == 7


def test_a_mistake_is_said_to_be_where_it_is(tmp_path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("seed: 1\n")
    with pytest.raises(ConfigError, match=r"^--set: unknown key 'distill.alfa'"):
        load_run_config(path, ["distill.alfa=3"])
    path.write_text("distill: {alfa: 3}\n")
    with pytest.raises(ConfigError, match=r"run.yaml: unknown key 'distill.alfa'"):
        load_run_config(path, ["seed=2"])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["router.hard_fraction"], "has no '='"),
        (["=0.1"], "has no key before its '='"),
        (["router.tolerance_auc=.inf"], "router.tolerance_auc must be a finite number .given inf"),
        (["serving.threshold=.nan"], "serving.threshold: a threshold of nan is above and below"),
        (["serving.latency_budget_ms=.inf"], "serving.latency_budget_ms must be a finite number"),
        (
            ["serving.latency_budget_ms=9", "serving.limits.max_budget_ms=5"],
            "latency_budget_ms is 9 but limits.max_budget_ms is 5; lower the one",
        ),
        (["seed.x=1"], "'seed' is a value"),
        (["router.speed=1"], "unknown key 'router.speed'; known ones are .*hard_fraction"),
        (["router.hardfraction=1"], "key 'router.hardfraction'; did you mean 'hard_fraction'"),
        (
            ["learners.dcnv2.optimizer.maxepochs=1"],
            "key 'learners.dcnv2.optimizer.maxepochs'; did you mean 'max_epochs'",
        ),
        (["router.max_hard_fraction=2"], "router.max_hard_fraction.*given 2"),
        (["seed=abc"], "settings: seed must be a whole number .given 'abc'"),
        (["seed="], "settings: seed must be a whole number .given nothing"),
        (["refit=maybe"], "settings: refit must be 'auto' or true or false .given 'maybe'"),
        (["ensemble.weight_methods=bayes"], "weight_methods must be a list, such as .a, b. .given"),
        (["ensemble.weight_methods=[]"], "weight_methods must have at least 1 item .given"),
        (["ensemble.weight_methods=[bayes,x]"], r"weight_methods\.1 must be 'uniform', 'greedy'"),
        (["report="], "settings: report must be a section with keys of its own .given nothing"),
        (["seed=4294967296"], "seed must be at most 4294967295 .given 4294967296"),
        (["ensemble.size=5"], "learners has 4 entries for every table and ensemble.size is 5"),
        (["student.model=xgboost"], "the student must be a neural model"),
        (
            ["student.optimizer.snapshots=3"],
            "student.optimizer.snapshots is 3; the student is served as one network",
        ),
        (
            ["router.hard_fraction=0.1", "router.mean_cost_us_per_row=3"],
            "hard_fraction 0.1 and mean_cost_us_per_row 3.0 are both given",
        ),
        (["distill.alpha.start=1.5"], "alpha 1.5 must lie in"),
        (
            ["distill.hints.learner=dcnv2"],
            "hints.learner is 'dcnv2' but hints.weight and relations are 0",
        ),
        (["distill.guard=2"], "distill.guard.*given 2"),
        (["distill.guard=0.5", "distill.alpha.start=0"], "guard is 0.5 but alpha is 0"),
        (
            ["distill.gating=true", "distill.alpha.start=0", "distill.augmented_per_row=0"],
            "gating is on but alpha is 0 and no rows are made up",
        ),
        (["distill.mixup.beta=0"], "distill.mixup.beta.*given 0"),
        (
            ["distill.hints={weight: 1, learner: xgboost}"],
            "'xgboost', which is no network but xgboost; name one of finalmlp, dcnv2",
        ),
        (
            ["distill.hints={weight: 1, learner: autorec}"],
            "'autorec', which is no network but autorec; name one of finalmlp, dcnv2",
        ),
        (["distill.hints={weight: 1, learner: nope}"], "'nope', which is no learner of the pool"),
        (
            [
                "distill.hints.weight=1",
                "learners={a: {model: xgboost}, b: {model: autorec}, c: {model: xgboost}}",
            ],
            "hints.weight is 1.0 but every learner is autorec or xgboost, which have no",
        ),
        (["distill.diversity=1"], "distill.diversity is 1.0 but student.branches is 1"),
        (["distill.mutual=1"], "distill.mutual is 1.0 but student.branches is 1"),
        (["distill.branch_loss=average"], "branch_loss is average but student.branches is 1"),
        (
            ["student={model: dcnv2, branches: 2}"],
            "branches is 2 but model is dcnv2",
        ),
        (
            ["distill.gating=true", "distill.teacher=ensemble", "ensemble.size=1"],
            "gating is on but ensemble.size is 1",
        ),
        (
            ["distill.gating=true", "ensemble.size=1", "learners={a: {model: dnn}}"],
            "gating is on but learners has one entry",
        ),
        (
            ["distill.exits=0.5", "student.hidden_units=[8]"],
            r"distill.exits is 0.5 but a student of model auto with hidden_units .8. has a single",
        ),
        (
            ["distill.pruning.share=0.5", "student.model=dcnv2"],
            r"distill.pruning.share is 0.5 but a student of model dcnv2 with .* is no perceptron",
        ),
        (
            ["distill.pruning.share=0.5", "student={model: dnn, hidden_units: []}"],
            r"pruning.share is 0.5 but a student of model dnn with hidden_units \[\] is no",
        ),
        (
            ["distill.pruning.share=0.5", "student_search.trials=4"],
            "student.model is auto and student_search.trials is 4, which may find another kind",
        ),
        (
            ["distill.pruning.share=0.5", "student={model: dnn, branches: 2}"],
            "pruning.share is 0.5 but student.branches is 2; only a student of one branch",
        ),
        (["distill.pruning.share=1"], "distill.pruning.share must be less than 1 .given 1"),
        (
            ["distill.quantisation_aware.weight=1"],
            "quantisation_aware.weight is 1.0 but ensemble.int8 is off",
        ),
        (
            ["distill.quantisation_aware.weight=1", "ensemble.int8=auto", "student.model=deepfm"],
            "quantisation_aware.weight is 1.0 but a student of model deepfm",
        ),
        (["distill.exits=0.5", "student.model=lr"], "exits is 0.5 but a student of model lr with"),
    ],
)
def test_mistakes_name_key_value_and_rule(settings: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        validate(RunConfig, apply_overrides({"seed": 1}, settings), "settings")


@pytest.mark.parametrize("name", ["../../evil", "a/b", "", "..", "x" * 65, "ä"])
def test_learners_are_named_like_folders(name: str) -> None:
    learners = {n: {"model": "dnn"} for n in ("a", "B-2", "c_3", name)}
    with pytest.raises(ConfigError, match=f"uses the name {name!r}; a name is 1 to 64 letters"):
        validate(RunConfig, {"learners": learners}, "settings")


def test_yaml_must_be_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("- 1\n")
    with pytest.raises(ConfigError, match="holds a list"):
        load_yaml(path)
    path.write_text("a: [1\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_yaml(path)
    path.write_bytes(b"PAR1\x80")
    with pytest.raises(ConfigError, match="is no text, but YAML is; a table goes with --train"):
        load_yaml(path)
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file or directory\)"):
        load_yaml(tmp_path / "none.yaml")


def test_settings_of_the_student_and_of_one_learner_keep_the_rest() -> None:
    config = load_run_config(None, ["student.model=fm", "learners.dcnv2.cross_layers=1"])
    default = RunConfig()
    assert config.student == default.student.model_copy(update={"model": "fm"})
    assert config.learners["dcnv2"].cross_layers == 1
    assert config.learners["ipnn"] == default.learners["ipnn"]


NO_FIELDS = FeatureLayout((), ())


def test_learners_for_small_tables_are_left_out_of_large_ones():
    config = RunConfig()
    assert "lr" in config.for_table(1_000, NO_FIELDS).learners
    assert "lr" in config.for_table(40_000, NO_FIELDS).learners
    assert "lr" not in config.for_table(40_001, NO_FIELDS).learners
    large = config.for_table(1_000_000, NO_FIELDS)
    assert list(large.learners) == ["finalmlp", "dcnv2", "ipnn", "xgboost"]


@pytest.mark.parametrize(
    ("users", "items", "rows", "sides", "is_in"),
    [
        (1_000, 500, 15_000, 1, True),
        (1_000, 500, 14_999, 1, False),  # fewer than fifteen a user
        (500, 1_000, 14_999, 1, False),
        (1_000, 199, 1_000_000, 1, False),  # hardly anything to tell users by
        (1_000, 500, 20_000, 0, False),  # no sides: nothing says that these are user and item
    ],
)
def test_autoencoders_need_rows_of_users_and_items(
    users: int, items: int, rows: int, sides: int, is_in: bool
) -> None:
    fields = (SparseField("user", users), SparseField("genres", 9, width=3))
    layout = FeatureLayout((), (*fields, SparseField("item", items)), context_fields=sides)
    assert ("autorec" in RunConfig().for_table(rows, layout).learners) is is_in


def test_hints_of_a_learner_that_the_table_leaves_out_are_refused_before_training():
    config = load_run_config(None, ["distill.hints={weight: 1, learner: lr}"])
    assert config.for_table(1_000, NO_FIELDS).distill.hints.learner == "lr"
    with pytest.raises(ConfigError, match=r"'lr', which is no learner .* below .* 50000"):
        config.for_table(50_000, NO_FIELDS)


def _wide(num_fields: int) -> FeatureLayout:
    return FeatureLayout((), tuple(SparseField(f"f{i}", 4) for i in range(num_fields)))


def test_very_wide_tables_are_spared_the_products_of_all_pairs() -> None:
    assert "ipnn" in RunConfig().for_table(50_000, _wide(200)).learners
    assert set(RunConfig().for_table(50_000, _wide(201)).learners) == {
        "finalmlp",
        "dcnv2",
        "xgboost",
    }
    some = {"learners": {"ipnn": {"model": "ipnn", "max_fields": 2, "fields": ["f0", "f1"]}}}
    config = RunConfig.model_validate({**some, "ensemble": {"size": 1}})
    assert "ipnn" in config.for_table(50_000, _wide(201)).learners


def test_an_ensemble_larger_than_what_suits_a_wide_table_is_refused() -> None:
    config = RunConfig.model_validate({"ensemble": {"size": 4}})
    assert len(config.for_table(50_000, _wide(200)).learners) == 4
    with pytest.raises(ConfigError, match=r"3 entries .* 201 sparse fields .*ipnn.*size is 4"):
        config.for_table(50_000, _wide(201))


def test_what_leaves_a_learner_out_is_told() -> None:
    user_and_item = (SparseField("user", 1_000), SparseField("item", 500))
    told = RunConfig().unsuited(50_000, _wide(201))
    no_keys = "the table has no keys of users and items with 200 values each"
    assert told == {
        "autorec": no_keys,
        "bmf": no_keys,
        "ipnn": "the table has 201 sparse fields and max_fields is 200",
        "lr": "the table is worth 50,000 rows and max_rows is 40,000",
    }
    layout = FeatureLayout((), user_and_item, context_fields=1)
    few = "users or items have 7.0 rows each and min_rows_per_id is 15"
    assert RunConfig().unsuited(7_000, layout) == {"autorec": few, "bmf": few}
    assert RunConfig().unsuited(15_000, layout) == {}
