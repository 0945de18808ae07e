"""Labels of configurations: the model's name, and the options in which its namesakes differ."""

from collections.abc import Mapping, Sequence

from flowbench.report.records import RunRecord

#: At most this many options are named to tell two configurations of one model apart.
MAX_NAMED_OPTIONS = 2
MAX_LABEL = 60


def label_configurations(records: Sequence[RunRecord]) -> list[str]:
    """A label for each configuration: the model's name, and the options in which its namesakes differ."""
    labels = []
    for record in records:
        namesakes = [each.options for each in records if each.model == record.model]
        keys = sorted({key for options in namesakes for key in options})
        telling = [key for key in keys if _tells(key, namesakes)]
        named = [_named(key, record.options) for key in telling if _applies(key, record.options)]
        label = f"{record.model} ({', '.join(named[:MAX_NAMED_OPTIONS])})" if named else record.model
        labels.append(label if len(label) <= MAX_LABEL else f"{record.model} ({record.name})")
    return [
        label if labels.count(label) == 1 else f"{record.model} ({record.name})"
        for label, record in zip(labels, records, strict=True)
    ]


def _tells(key: str, namesakes: Sequence[Mapping[str, str]]) -> bool:
    """Whether the option `key` belongs into the labels of these configurations of one model.

    It does if two configurations that could have the option set it differently. An option of a part that a
    configuration does not use, such as `solver.rtol` beside `solver.name = "rk4"`, could not be set there.
    """
    have = [options for options in namesakes if _is_part(key) or _applies(key, options)]
    return len({options.get(key) for options in have}) > 1


def _applies(key: str, options: Mapping[str, str]) -> bool:
    """Whether the option `key` exists for a configuration with these `options`, set or left unset.

    A configuration names each part that it uses, and lists all options of that part. So an option that is
    missing beside the name of its part does not exist: `flow.layers` beside `flow.name = "cnf"`.
    """
    return key in options or not (_is_part(key) or f"{key.rpartition('.')[0]}.name" in options)


def _named(key: str, options: Mapping[str, str]) -> str:
    return options[key] if _is_part(key) else f"{key}={options.get(key, 'unset')}"


def _is_part(key: str) -> bool:
    """Whether an option is the name of a part, such as `transforms.0.name`."""
    return key.endswith(".name")
