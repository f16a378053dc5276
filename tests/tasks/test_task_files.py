"""Every task file at once: the templates load, render, ask without telling, and agree with their particles.

Each record below is ours; its fields hold none of the words of the choices, so that a word found in a prompt was put
there by the template.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit19_ray.errors import TaskError
from kit19_ray.sources.readers.hate_speech import GROUPS
from kit19_ray.tasks.josa import PAIRS
from kit19_ray.tasks.task import DEFINITIONS, Task, Template, load_task, load_tasks, withhold
from kit19_ray.tasks.templates import render, undeclared

from .conftest import ASKS_BARE, left_behind

PAIR = {"sentence1": "할머니가 마당에서 고추를 말린다.", "sentence2": "바람이 불어 창문이 덜컹거렸다."}
RECORDS: dict[str, dict[str, str]] = {
    "apeach": {"text": "오늘은 비가 와서 우산을 챙겼다.", "label": "none"},
    "unsmile": {"text": "오늘은 비가 와서 우산을 챙겼다.", "label": "hate", "targets": "여성/가족, 기타 혐오"},
    "hatescore": {"text": "오늘은 비가 와서 우산을 챙겼다.", "label": "hate", "targets": "지역", "origin": "댓글"},
    "kobest_boolq": {
        "paragraph": "수달은 족제빗과에 딸린 동물로 물가에 산다. 물고기를 잡아먹는다.",
        "question": "수달은 물가에 사는가?",
        "label": "true",
    },
    "kobest_copa": {
        "premise": "아이가 우산을 폈다.",
        "question": "원인",
        "alternative_1": "소나기가 쏟아졌다.",
        "alternative_2": "신발 끈이 풀렸다.",
        "label": "1",
    },
    "kobest_hellaswag": {
        "context": "요리사가 냄비에 물을 붓고 불을 켠다. 물이 끓기를 기다린다.",
        "ending_1": "면을 냄비에 넣는다.",
        "ending_2": "설거지를 마치고 퇴근한다.",
        "ending_3": "손님이 계산을 한다.",
        "ending_4": "자동차에 기름을 채운다.",
        "label": "1",
    },
    "kobest_wic": {
        "word": "배",
        "context_1": "포구에 [배]가 들어왔다.",
        "context_2": "제사상에 [배]를 올렸다.",
        "label": "false",
    },
    "kornli": {**PAIR, "label": "neutral"},
    "korsts": {**PAIR, "score": "1.4", "label": "1"},
    "kowiki_generation": {
        "title": "수달",
        "opening": "수달은 족제빗과의 포유류이다. 하천과 호숫가에 산다.",
        "continuation": "헤엄을 잘 치고 물고기를 주로 먹는다.",
    },
    "kowiki_qa": {"title": "수달", "first_paragraph": "물가에 사는 족제빗과의 포유류이다.", "subject": "term"},
    "pawsx": {**PAIR, "label": "different"},
    "parakqc": {**PAIR, "label": "different"},
    "stylekqc": {**PAIR, "label": "different"},
    "question_pair": {"question1": "저녁에 뭐 먹지", "question2": "주말에 어디 갈까", "label": "different"},
    "nsmc": {"text": "두 시간이 금방 지나갔다", "label": "positive"},
    "sae4k": {"sentence": "내일 몇 시에 만날까", "argument": "약속 시간", "label": "wh"},
    "petitions": {
        "category": "교통/건축/국토",
        "title": "마을버스를 늘려 주세요",
        "content": "저희 동네는 버스가 한 시간에 한 대뿐이라 출근길이 힘듭니다. 배차 간격을 줄여 주십시오.",
    },
    "math_korean": {
        "problem": "사과가 한 상자에 여섯 개씩 세 상자 있습니다. 사과는 모두 몇 개입니까?",
        "code": "print(6 * 3)",
        "answer": "18",
    },
    "lbox_summarization": {
        "precedent": "주문\n상고를 기각한다.\n이유\n원고의 주장은 받아들일 수 없다.",
        "summary": "원고의 상고를 기각한 사례",
    },
}

# What a template that does not fit the record above is shown instead.
OTHERS = {"kobest_boolq": {"question": "수달은 물가에 산다."}}

# After a filled-in word, a particle that agrees with it comes from the filter, never from the template's own text.
_FORMS = sorted({form for pair in PAIRS for form in pair.split("/")} | {"는"}, key=len, reverse=True)
_HARD_PARTICLE = re.compile(r"}}['\"”’]*(" + "|".join(_FORMS) + r")(?=[\s.,!?'\"]|$)")


def problems(path: Path, record: dict[str, str]) -> list[str]:
    """What is wrong with a task file; empty when nothing is."""
    found = [f"key {key!r} is not text" for key in _keys(yaml.safe_load(path.read_text(encoding="utf-8")))
             if not isinstance(key, str)]  # fmt: skip
    task = load_task(path)
    found += _counts(task)
    seen: dict[tuple[str, str], str] = {}
    for template in task.spec.templates:
        shown = record if template.applies(record) else record | OTHERS.get(path.stem, {})
        if not template.applies(shown):
            found.append(f"{template.name}: fits no record here")
        found += [f"{template.name}: {problem}" for problem in _template(task, template, shown)]
        values = _values(task, template, shown)
        prompt = (render(template.instruction, values), render(template.input, values))
        if prompt in seen:
            found.append(f"{template.name}: renders as {seen[prompt]} does")
        seen[prompt] = template.name
    return found


def _keys(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield key
            yield from _keys(value)
    elif isinstance(node, list):
        for value in node:
            yield from _keys(value)


def _counts(task: Task) -> Iterator[str]:
    templates = task.spec.templates
    if len(templates) < 10:
        yield f"{len(templates)} templates"
    for kind in ("closed", "open"):
        count = sum(t.kind == kind for t in templates)
        if task.spec.answer and count < (2 if all(t.generation for t in templates if t.kind == "open") else 4):
            yield f"{count} {kind} templates"


def _values(task: Task, template: Template, record: dict[str, str]) -> dict[str, Any]:
    """What a prompt may use: never the answer, so that a prompt which does cannot render."""
    kept = task.spec.answer if not template.generation else None
    shown = {k: v for k, v in record.items() if k in task.spec.fields and k != kept}
    for name, said in task.spec.spoken.items():
        shown[f"{name}_said"] = ", ".join(said.get(word, word) for word in record[name].split(", "))
    return shown | ({"choices": task.choice_words(template, record)} if task.spec.answer else {})


def _template(task: Task, template: Template, record: dict[str, str]) -> Iterator[str]:
    values = _values(task, template, record)
    words = task.choice_words(template, record) if task.spec.answer else []
    prompt = f"{render(template.instruction, values)}\n{render(template.input, values)}"
    asked = undeclared(template.instruction) | undeclared(template.input)
    least = 1 if ASKS_BARE.search(template.instruction) else 2
    if len(set(template.outputs)) < least:
        yield f"{len(set(template.outputs))} outputs"
    for text in (template.instruction, template.input, *template.outputs):
        if hard := _HARD_PARTICLE.search(text):
            yield f"particle {hard[1]!r} after a filled-in word without the filter: {text}"
        for name in undeclared(text) & {n for o in task.spec.optional for n in (o, f"{o}_said")}:
            if not template.requires:
                yield f"uses {name!r}, which may be empty, for every record"
    if template.generation or not task.spec.answer:
        yield from _generation(task, template, record, prompt, asked)
        blank = {"label": "", "choice": "", "number": 0}
        rendered = [[render(o, {**values, **record, **blank}) for o in template.outputs]]
    else:
        yield from _choice_lists(template, words, prompt, asked)
        rendered = [
            [render(o, {**values, "label": label, "choice": word, "number": place}) for o in template.outputs]
            for place, (label, word) in enumerate(zip(task.labels, words, strict=True), 1)
        ]
        for variants in zip(*rendered, strict=True):
            if len(set(variants)) < len(variants):
                yield f"two labels have the same answer: {variants}"
    for answers in rendered:
        if len(set(answers)) < len(answers):
            yield f"two phrasings are the same: {answers}"
    for text in (prompt.strip(), *(a for answers in rendered for a in answers)):
        if bad := left_behind(text):
            yield f"{bad!r} in {text!r}"
        if not text or text != text.strip() or "  " in text.replace("(      )", ""):
            yield f"stray space in {text!r}"


def _choice_lists(template: Template, words: list[str], prompt: str, asked: frozenset[str]) -> Iterator[str]:
    if len(set(words)) < len(words):
        yield f"two choices are the same: {words}"
    if template.kind == "closed":
        if missing := [w for w in words if w not in prompt]:
            yield f"closed, but does not list {missing}"
        for word in words:
            if other := [w for w in words if w != word and word in w]:
                yield f"choice {word!r} is part of {other[0]!r}, so a list of both is ambiguous"
    else:
        if "choices" in asked:
            yield "open, but uses `choices`"
        if told := [w for w in words if w in prompt.replace("5점 만점", "")]:
            yield f"open, but its prompt holds {told}"


def _generation(
    task: Task, template: Template, record: dict[str, str], prompt: str, asked: frozenset[str]
) -> Iterator[str]:
    for output in template.outputs:
        answers = undeclared(output) - asked - {"label", "choice", "choices"}
        if not answers:
            yield f"output {output!r} holds nothing that the prompt does not"
        told = [n for n in sorted(answers) if not n.endswith("_said") and record[n] in prompt]
        if template.kind == "open" and told:
            yield f"its prompt holds the answer {told}"


@pytest.mark.parametrize("path", sorted(DEFINITIONS.glob("*.yaml")), ids=lambda p: p.stem)
def test_task_file(path: Path) -> None:
    assert problems(path, RECORDS[path.stem]) == []


def test_there_are_twenty_tasks_and_two_hundred_templates() -> None:
    paths = sorted(DEFINITIONS.glob("*.yaml"))
    assert [p.stem for p in paths] == sorted(RECORDS)
    assert sum(len(load_task(p).spec.templates) for p in paths) == 200


@pytest.mark.parametrize("name", ["hatescore", "unsmile"])
def test_a_closed_question_for_the_hated_groups_lists_them_all(name: str) -> None:
    """Several groups may be right, so they are no `choices`, and the template has to name what the reader gives."""
    (template,) = [
        t for t in load_task(DEFINITIONS / f"{name}.yaml").spec.templates if t.generation and t.kind == "closed"
    ]
    assert ", ".join(GROUPS) in " ".join(template.instruction.split())


def test_no_two_tasks_ask_with_the_same_words() -> None:
    """Templates of one kind of task are not copies of each other."""
    asked: dict[tuple[str, str], str] = {}
    for path in sorted(DEFINITIONS.glob("*.yaml")):
        for template in load_task(path).spec.templates:
            text = (template.instruction, template.input)
            assert text not in asked, f"{path.stem}.{template.name} asks as {asked[text]} does"
            asked[text] = f"{path.stem}.{template.name}"


def _first(tree: dict[str, Any], **changes: Any) -> None:
    tree["templates"][0].update(changes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t["templates"].pop(), "9 templates"),
        (lambda t: [x.update(kind="open") for x in t["templates"]], "0 closed templates"),
        (lambda t: _first(t, outputs=["{{ choice }}."]), "1 outputs"),
        (lambda t: _first(t, requires={"text": {"matches": "자전거"}}), "fits no record"),
        (lambda t: _first(t, outputs=["{{ choice }}", "{{ choice }} ", "하나"]), "two labels have the same answer"),
        (lambda t: _first(t, instruction="이 평은 긍정인가?"), "does not list ['부정']"),
        (lambda t: _first(t, kind="open"), "open, but its prompt holds"),
        (lambda t: _first(t, kind="open", instruction="{{ choices | length }}"), "open, but uses `choices`"),
        (lambda t: _first(t, choices={"positive": "추천", "negative": "비추천"}), "is part of"),
        (lambda t: _first(t, instruction="{{ text }}은 긍정인가, 부정인가?"), "without the filter"),
        (lambda t: _first(t, instruction="이 평은(는) 긍정인가, 부정인가?"), "'은(는)' in"),
        (lambda t: _first(t, instruction="긍정, 부정 {{ '{{' }}"), "'{{' in"),
        (lambda t: _first(t, outputs=["{{ choice }}", "{{ choice }} 쪽", " {{ choice }}"]), "stray space"),
        (lambda t: t["templates"].append({**t["templates"][0], "name": "again"}), "renders as"),
        (lambda t: _first(t, generation=True, outputs=["가 {{ text }}", "나 {{ text }}", "다"]), "holds nothing that"),
        (lambda t: t.update(optional=["text"]), "which may be empty"),
    ],
)  # fmt: skip
def test_each_check_finds_its_mistake(tmp_path: Path, change: Any, said: str) -> None:
    tree = yaml.safe_load((DEFINITIONS / "nsmc.yaml").read_text(encoding="utf-8"))
    change(tree)
    path = tmp_path / "nsmc.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    assert any(said in problem for problem in problems(path, RECORDS["nsmc"]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: _first(t, instruction="{{ label }} 긍정 부정"), "instruction uses 'label'"),
        (lambda t: _first(t, input="{{ txt }}"), "did you mean 'text'"),
        (lambda t: _first(t, outputs=["{{ chioce }}"]), "did you mean 'choice'"),
        (lambda t: _first(t, name=t["templates"][1]["name"]), "duplicate template names"),
        (lambda t: _first(t, requires={"lable": ["positive"]}), "did you mean 'label'"),
        (lambda t: _first(t, input="{{ text | particle('는은') }}"), "not one of"),
        (lambda t: _first(t, input="{{ text "), "unexpected end"),
        (lambda t: _first(t, choices={"positive": "좋음"}), "its choices must name the task's labels"),
        (lambda t: _first(t, knid="open"), "did you mean 'kind'"),
        (lambda t: _first(t, answer="{{ text }}"), "`answer` is for free answers"),
        (lambda t: _first(t, generation=True, answer="{{ txet }}"), "answer uses 'txet'"),
        (lambda t: _first(t, requires={"text": {"matches": "(가"}}), "is no regular expression"),
        (lambda t: _first(t, requires={"text": {}}), "a condition needs `matches` or `lacks`"),
        (lambda t: t.update(spoken={"txet": {}}), "did you mean 'text'"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, change: Any, said: str) -> None:
    tree = yaml.safe_load((DEFINITIONS / "nsmc.yaml").read_text(encoding="utf-8"))
    change(tree)
    path = tmp_path / "nsmc.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    with pytest.raises(TaskError) as caught:
        load_task(path)
    assert said in str(caught.value)
    assert "nsmc.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"nsmk": ["x"]}, r"held_out_templates: 'nsmk' is no task of this build \(did you mean 'nsmc'\?\)"),
        ({"nsmc": ["positiv"]}, r"held_out_templates: nsmc has no template 'positiv'.*; it has "),
        ({"nsmc": None}, "nsmc keeps no template for its training rows"),
    ],
)
def test_templates_that_cannot_be_held_out(names: dict[str, list[str] | None], said: str) -> None:
    tasks = load_tasks(["nsmc"])
    every = [template.name for template in tasks["nsmc"].spec.templates]
    with pytest.raises(TaskError, match=said):
        withhold(tasks, {name: every if chosen is None else chosen for name, chosen in names.items()})
