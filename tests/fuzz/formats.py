"""Every kind of file that is fuzzed."""

from campaign import Format
from of_documents import DOCUMENTS
from of_exports import EXPORTS
from of_pictures import PICTURES
from of_results import RESULTS
from of_sets import SETS
from of_volumes import VOLUMES
from of_weights import WEIGHTS

FORMATS: tuple[Format, ...] = (*DOCUMENTS, *WEIGHTS, *RESULTS, *PICTURES, *SETS, *VOLUMES, *EXPORTS)
