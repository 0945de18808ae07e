"""The five tables on which papers of normalizing flows compare densities: sources and published figures.

Papamakarios, Pavlakou and Murray (2017) chose the tables and put their files on Zenodo, record 1161203. Their
code, gpapamak/maf, and FFJORD's, rtqichen/ffjord (Grathwohl et al. 2019), treat them alike.
"""

from dataclasses import dataclass

#: The parts of a published split, in the order in which a table's file holds them.
PARTS = ("train", "validation", "test")
#: The column of a fetched table that names the part of each row.
PART_COLUMN = "part"


@dataclass(frozen=True)
class BenchmarkArchive:
    """A file on the net that holds tables: its `urls`, tried in this order, and its hash.

    `known_hash` is "md5:..." or "sha256:...". The file is kept as `name` in `folder` below the folder of
    downloads. `size` is what a user has to download, in words.
    """

    urls: tuple[str, ...]
    known_hash: str
    folder: str
    name: str
    size: str
    licence: str


#: Zenodo publishes an MD5 alone, which is here as other public programs have it. A fetch finds the sha256,
#: and keeps it beside the table.
MAF_ARCHIVE = BenchmarkArchive(
    urls=(
        "https://zenodo.org/records/1161203/files/data.tar.gz?download=1",
        "https://zenodo.org/api/records/1161203/files/data.tar.gz/content",
    ),
    known_hash="md5:9b9c9b0375315ad270eba4ce80c093ab",
    folder="zenodo-1161203",
    name="data.tar.gz",
    size="about 860 MB",
    licence="see https://zenodo.org/records/1161203",
)


@dataclass(frozen=True)
class PublishedFigure:
    """The mean NLL of a model on the published test rows (nats), and where it stands."""

    model: str
    nll: float
    source: str


@dataclass(frozen=True)
class Benchmark:
    """A table of an archive.

    `members` are its files in there. `rows` are the published numbers of rows of the `PARTS`, and `columns`
    that of columns. `steps` says in sentences how the table comes from the members
    (`flowbench.data.benchmark_steps`), with what is odd about it. The `figures` are of the table after these
    steps, standardised as it is.
    """

    description: str
    origin: str
    members: tuple[str, ...]
    rows: tuple[int, int, int]
    columns: int
    steps: tuple[str, ...]
    figures: tuple[PublishedFigure, ...]
    archive: BenchmarkArchive = MAF_ARCHIVE

    @property
    def source(self) -> str:
        """Where the table is from, in words."""
        return f"{self.origin}; as of Papamakarios et al. (2017), doi:10.5281/zenodo.1161203"


_LAST_TENTHS = "the last tenth of the rows are test rows, and the last tenth of the others validation rows"
_SCALED = (
    "each column is standardised by the mean and the standard deviation (n) of train and validation rows"
)
_FLOAT32 = "the values are rounded to float32"

#: Source and, by table, test NLL of each model. The papers give log-likelihoods, but FFJORD's gives NLLs.
_FIGURES = {
    "Gaussian": ("Papamakarios et al. 2017, Table 1", (7.74, 3.58, 27.93, 37.24, -96.67)),
    "MAF (5)": ("Papamakarios et al. 2017, Table 1", (-0.14, -9.07, 17.70, 11.75, -155.69)),
    "MAF (10)": ("Papamakarios et al. 2017, Table 1", (-0.24, -10.08, 17.73, 12.24, -154.93)),
    "FFJORD": ("Grathwohl et al. 2019, Table 2", (-0.46, -8.59, 14.92, 10.43, -157.40)),
    "RQ-NSF (C)": ("Durkan et al. 2019, Table 1", (-0.64, -13.09, 14.75, 9.67, -157.54)),
}


def _figures(number: int) -> tuple[PublishedFigure, ...]:
    return tuple(PublishedFigure(model, nlls[number], source) for model, (source, nlls) in _FIGURES.items())


POWER = Benchmark(
    "POWER: electricity in a household, a reading a minute",
    "Hebrail and Berard (2012), UCI, CC BY 4.0",
    ("data/power/data.npy",),
    (1_659_917, 184_435, 204_928),
    6,
    (
        "the rows are shuffled by numpy's RandomState(42), though they are a time series",
        "columns 4, the current, and 2, the reactive power, are left out",
        "uniform noise is added, from 0 to 0.001 to the power, 0.01 to the voltage and 1 to the three "
        "meters; the time of day gets none, so its values repeat",
        _LAST_TENTHS,
        _SCALED,
        _FLOAT32,
    ),
    _figures(0),
)

GAS = Benchmark(
    "GAS: sensors in mixtures of ethylene and CO",
    "Fonollosa et al. (2015), UCI, CC BY 4.0",
    ("data/gas/ethylene_CO.pickle",),
    (852_174, 94_685, 105_206),
    8,
    (
        "the pickle is read as data, without running what it says; it holds a quarter of UCI's rows",
        "columns Meth, Eth and Time are left out",
        "while columns correlate by more than 0.98, the first that does is left out; correlations below "
        "-0.98 stay, and test rows count",
        "each column is standardised by the mean and the standard deviation (n - 1) of all rows, also of "
        "the test rows",
        f"the rows keep their order: {_LAST_TENTHS}",
        _FLOAT32,
    ),
    _figures(1),
)

HEPMASS = Benchmark(
    "HEPMASS: collisions of particles, the signal of a mass of 1000 alone",
    "Baldi et al. (2016), UCI, CC BY 4.0",
    ("data/hepmass/1000_train.csv", "data/hepmass/1000_test.csv"),
    (315_123, 35_013, 174_987),
    21,
    (
        "rows of background, whose first column is not 1, are left out, and then that column",
        "the last column of the test file is left out, which the train file lacks",
        "each column is standardised by the mean and the standard deviation (n - 1) of train and "
        "validation rows",
        "columns whose smallest value stands in more than 5 train rows are left out; the comment beside "
        "the code means any value",
        "the test file holds the test rows; the last tenth of the train file are validation rows",
        _FLOAT32,
    ),
    _figures(2),
)

MINIBOONE = Benchmark(
    "MINIBOONE: neutrinos, the signal of electron neutrinos alone",
    "Roe et al. (2005), UCI, CC BY 4.0",
    ("data/miniboone/data.npy",),
    (29_556, 3_284, 3_648),
    43,
    (
        "the archive's file lacks already 11 outliers, whose first value is below -100, and 7 of 50 "
        "columns, whose smallest value stands in more than 5 rows",
        f"the rows keep their order: {_LAST_TENTHS}",
        _SCALED,
        _FLOAT32,
    ),
    _figures(3),
)

BSDS300 = Benchmark(
    "BSDS300: patches of 8 x 8 pixels of photographs, without the last pixel",
    "Martin, Fowlkes, Tal and Malik (2001), Berkeley, for research that is not commercial",
    ("data/BSDS300/BSDS300.hdf5",),
    (1_000_000, 50_000, 250_000),
    63,
    (
        "the archive's file is split already; its values got uniform noise, and each patch lost its mean "
        "and its last pixel",
        "nothing is standardised",
        _FLOAT32,
    ),
    _figures(4),
)
