"""What a user imports, and where it is: read by type checkers, and by `__init__.py`."""

from . import store as store
from .commands.listing import list as list
from .config import Run as Run
from .data.sources.base import Splits as Splits
from .demos import demo as demo
from .deploy.export import export as export
from .deploy.finetune import finetune as finetune
from .deploy.measuring.measure import measure as measure
from .deploy.publishing import push as push
from .deploy.receipts import receipt as receipt
from .deploy.site.making import try_ as try_
from .deploy.verify import verify as verify
from .engine.answers import check as check
from .engine.answers import evaluate as evaluate
from .engine.answers import gauge as gauge
from .engine.answers import predict as predict
from .engine.cascades import cascade as cascade
from .engine.packing import pack as pack
from .engine.probing import probe as probe
from .engine.promises import promise as promise
from .engine.recording import record as record
from .engine.runs import distill as distill
from .engine.runs import train as train
from .engine.student import load_student as load_student
from .errors import CounterpoiseError as CounterpoiseError
from .errors import Interrupted as Interrupted
from .integrations.distillation import Distillation as Distillation
from .objectives.balance import BalanceDivergence as BalanceDivergence
from .objectives.balance import balance_divergence as balance_divergence
from .objectives.composite import WeightedSum as WeightedSum
from .objectives.composite import objective as objective
from .objectives.gauge import Gauge as Gauge
from .pages.report.writing import report as report
from .pages.watching import watch as watch
from .studies.advising.advise import advise as advise
from .studies.compare import compare as compare
from .studies.first_run import init as init
from .studies.fitting.fit import fit as fit
from .studies.search import search as search
from .teachers.stored import StoredTeacher as StoredTeacher

__version__: str
