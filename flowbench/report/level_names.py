"""What the description of a run says of its categories: which columns have some, and their names."""

from collections.abc import Mapping

from flowbench.report.table_cautions import typed


def level_names(dataset: Mapping[str, object]) -> dict[str, dict[float, str]]:
    """The names of the levels of the given columns that have some, by column and value, as run.json has them.

    What is not as it should be is left out.
    """
    types = typed(dict, dataset.get("types"))
    found = {}
    for name, values in typed(dict, dataset.get("levels")).items():
        numbers = [float(each) for each in typed(list, values) if isinstance(each, int | float)]
        texts = typed(list, typed(dict, types.get(name)).get("levels"))
        named = {each: f"{each:g}" for each in numbers}
        found[str(name)] = named | {float(place): str(text) for place, text in enumerate(texts)}
    return found


def categorical_of(dataset: Mapping[str, object]) -> tuple[str, ...]:
    """The categorical columns whose probability mass a run has learnt, as its description tells."""
    return tuple(map(str, typed(list, dataset.get("categorical"))))
