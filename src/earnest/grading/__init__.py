"""One way to judge a reply: typed outcomes, tags, abstention, refusal, option match, official rules."""

from earnest.grading.abstention import abstains, open_at_silence
from earnest.grading.confidence import answer_probability
from earnest.grading.grade import Grade, grade
from earnest.grading.mmau import mmau_match, mmsu_letter
from earnest.grading.options import OptionMatch, match_option
from earnest.grading.outcomes import Outcome, count
from earnest.grading.record import Record, make_record
from earnest.grading.refusal import refuses
from earnest.grading.tags import Cited, Reply, answer_span, parse_reply, parse_segments
from earnest.grading.verdicts import read_verdict

__all__ = [
    "Cited",
    "Grade",
    "OptionMatch",
    "Outcome",
    "Record",
    "Reply",
    "abstains",
    "answer_probability",
    "answer_span",
    "count",
    "grade",
    "make_record",
    "match_option",
    "mmau_match",
    "mmsu_letter",
    "open_at_silence",
    "parse_reply",
    "parse_segments",
    "read_verdict",
    "refuses",
]
