"""Rules that every template keeps, whatever it says: a yes/no question gets a yes or no, an answer speaks as its prompt
does, a label stands alone only where the prompt asks for that, and no option has a place of its own.

Templates are rendered with `◇` for what a source writes, so that only our own words are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from kit19_ray.tasks.filled_template import shown_order
from kit19_ray.tasks.task import Task, Template, load_tasks
from kit19_ray.tasks.templates import render

from .conftest import ASKS_BARE

TASKS = load_tasks()
EACH = [(task, template) for task in TASKS.values() for template in task.spec.templates]
NAMES = [f"{task.name}.{template.name}" for task, template in EACH]
each_template = pytest.mark.parametrize(("task", "template"), EACH, ids=NAMES)

WH = re.compile(r"무엇|무슨|누구|몇|얼마|어떤|어떻|어떠|어느|어디|뭐|뭔|왜|중 |중에서|주시겠|실래요|은 어때")
YES_NO = re.compile(r"^(?:(?:답변|답|정답): )?[\"']?(?:네|예|응|아니요|아니오|아니|글쎄|그렇|알 수 없|받아들여야 할지)")
POLITE = re.compile(r"(?:(?<!아)니다|니까|십시오|[가-힣]요|죠)[.?!]$")
PLAIN = re.compile(r"(?:[^니]다|아니다|시오|는가|인가|한가|던가)[.?!]$")
FAMILIAR = re.compile(r"(?:야|어|아|해|줘|봐|돼|지|게|까|때|라|래|져|쳐|워|네)[.?!]$")
COMMAND = re.compile(r"(?:시오|(?<!골)(?<!달)라)\.$")  # 골라. is familiar


def values(task: Task, template: Template, label: str) -> dict[str, object]:
    """What a template is filled with: `◇` for a field, the words of the choices where they are ours."""
    fields: dict[str, object] = dict.fromkeys(task.spec.fields, "◇")
    fields |= {f"{name}_said": "◇" for name in task.spec.spoken}
    words = task.choice_words(template, dict.fromkeys(task.spec.fields, "◇"))
    at = task.labels.index(label) if label else 0
    choice = words[at] if words else ""
    return fields | {"choices": words, "label": label, "choice": choice, "number": at + 1}


def outputs(task: Task, template: Template) -> Iterator[str]:
    """Every phrasing with every label."""
    for label in [""] if template.generation or not task.labels else task.labels:
        for phrasing in template.outputs:
            yield render(phrasing, values(task, template, label))


def question(task: Task, template: Template) -> str:
    """The last sentence of what is asked, its list of options left out."""
    text = render(template.instruction, values(task, template, task.labels[0] if task.labels else ""))
    text = re.sub(r"\n(?:보기:|유형:|- |[0-9]\.|[^\n]*, )[\s\S]*", "", text).strip()
    sentences = re.split(r"(?<=[.?!])\s+", text)
    asks = [s for s in sentences if re.search(r"[가-힣][.?!]$", s) and "◇" not in s.replace("'◇'", "")]
    return (asks or sentences)[-1]


def registers(text: str) -> set[str]:
    """How the sentences of an answer speak; labels and pieces do not."""
    found = set()
    for sentence in re.split(r"(?<=[.?!])\s+", text.strip("\"'")):
        sentence = sentence.strip("\"'")
        if not re.search(r"[가-힣][.?!]$", sentence) or sentence.endswith("번."):
            continue
        polite, plain = bool(POLITE.search(sentence)), bool(PLAIN.search(sentence))
        found.add("polite" if polite else "plain" if plain else "familiar" if FAMILIAR.search(sentence) else "?")
    return found


def asked_register(sentence: str) -> str:
    if POLITE.search(sentence) and not re.search(r"[을를일볼할줄]까\?$", sentence):
        return "polite"
    if PLAIN.search(sentence) or COMMAND.search(sentence):
        return "plain"
    return "familiar" if FAMILIAR.search(sentence) else "?"


@each_template
def test_a_yes_no_question_gets_a_yes_or_no(task: Task, template: Template) -> None:
    text = render(template.instruction, values(task, template, task.labels[0] if task.labels else ""))
    asked = [s for s in re.split(r"(?<=[.?!])\s+", text) if s.endswith("?")]
    if not asked or (template.kind == "closed" and ASKS_BARE.search(text)):
        return
    if any(WH.search(s) or s.count("인가") > 1 or s.count("인지") > 1 for s in asked) or template.generation:
        return
    if not task.labels:
        return
    assert [o for o in outputs(task, template) if not YES_NO.match(o)] == []


@each_template
def test_an_answer_speaks_as_its_prompt_does(task: Task, template: Template) -> None:
    asked = asked_register(question(task, template))
    if asked == "?":
        assert "◇" in question(task, template), "no register that is known here"  # else the source asks
        return
    for output in outputs(task, template):
        assert registers(output) <= {asked}, f"{asked}: {question(task, template)!r} -> {output!r}"


@each_template
def test_a_label_stands_alone_only_where_the_prompt_asks_for_it(task: Task, template: Template) -> None:
    bare = [
        output
        for output in template.outputs
        if re.fullmatch(r"\{\{ (?:choice|answer|argument|targets\w*|title|category|number)[^}]*\}\}[.번]?", output)
    ]
    sentences = {
        o for o in bare if o == "{{ choice }}." and all(map(_is_sentence, task.choice_words(template, _blank(task))))
    }
    if task.spec.choice_fields:
        sentences |= {o for o in bare if o.startswith("{{ choice")}
    sentences |= {o for o in bare if "particle('이에요/예요')" in o or "particle('이야/야')" in o or "이다/다" in o}
    bare = [o for o in bare if o not in sentences]
    if ASKS_BARE.search(template.instruction):
        assert bare == template.outputs
    else:
        assert bare == []


def _blank(task: Task) -> dict[str, str]:
    return dict.fromkeys(task.spec.fields, "◇")


def _is_sentence(word: str) -> bool:
    return re.search(r"(?:다|요|까|돼|야|어|아|해)$", word) is not None and len(word) > 2


@each_template
def test_no_option_has_a_place_of_its_own(task: Task, template: Template) -> None:
    if template.kind == "open" or template.generation:
        return
    assert "choices" in template.instruction + template.input, "the options stand in the text"
    words = task.choice_words(template, _blank(task))
    if not task.spec.choice_fields:
        for word in words:
            literal = re.sub(r"\{\{.*?\}\}|\{%.*?%\}", "", template.instruction + template.input)
            assert word not in literal.split("\n") and f" {word} " not in f" {literal} ", word
    firsts = {shown_order(task, template, str(i), 19)[0] for i in range(400)}
    assert firsts == (set(range(len(words))) if template.order == "shuffled" else {0, len(words) - 1})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("이 글은 혐오 발언입니다.", {"polite"}),
        ("같은 뜻이에요.", {"polite"}),
        ("이 글은 혐오 발언이다.", {"plain"}),
        ("차단 처리할게.", {"familiar"}),
        ("분류: 혐오", set()),
        ("그 말은 참이야. 두 문장의 뜻은 같습니다.", {"familiar", "polite"}),
    ],
)
def test_registers_are_told_apart(text: str, expected: set[str]) -> None:
    assert registers(text) == expected


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("고르시오.", "plain"),
        ("답하라.", "plain"),
        ("무엇인가?", "plain"),
        ("골라 줘.", "familiar"),
        ("어느 쪽일까?", "familiar"),
        ("무엇입니까?", "polite"),
        ("답하십시오.", "polite"),
        ("인가요?", "polite"),
    ],
)
def test_the_register_of_a_prompt(sentence: str, expected: str) -> None:
    assert asked_register(sentence) == expected
