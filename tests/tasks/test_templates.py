from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.errors import TaskError
from kit19_ray.tasks.templates import either, numbered, render, truncate_sentences, undeclared


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ word | particle('은/는') }} 무엇인가요?", "책은 무엇인가요?"),
        ("{{ word | quoted | particle('을/를') }} 설명하시오.", "'책'을 설명하시오."),
        ("{{ choices | either | particle('으로/로') }} 답하라", "긍정 또는 부정으로 답하라"),
        ("{{ choices | numbered }}", "1. 긍정\n2. 부정"),
        ("{{ choices | join(', ') }}", "긍정, 부정"),
        ("{% if word == '책' %}맞다{% else %}아니다{% endif %}", "맞다"),
    ],
)
def test_filters(template: str, expected: str) -> None:
    assert render(template, {"word": "책", "choices": ["긍정", "부정"]}) == expected


@pytest.mark.parametrize(
    ("words", "text"),
    [([], ""), (["가"], "가"), (["가", "나"], "가 또는 나"), (["가", "나", "다"], "가, 나, 다 중 하나")],
)
def test_alternatives(words: list[str], text: str) -> None:
    assert either(words) == text
    assert numbered(words) == "\n".join(f"{i + 1}. {w}" for i, w in enumerate(words))


@given(st.text())
def test_a_value_is_never_read_as_a_template(value: str) -> None:
    assert render("<{{ text }}>", {"text": value}) == f"<{value}>"


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__ }}",
        "{{ ''['__class__'] }}",
        "{{ '' | attr('__class__') }}",
        "{{ ().__class__.__bases__[0].__subclasses__() }}",
        "{{ '{0.__class__}'.format(text) }}",
        "{{ text.format_map.__globals__ }}",
        "{{ choices.append('다') }}",
        "{{ choices.clear() }}",
        "{{ 'x' * 1000000000 }}",
        "{{ 9 ** 99999999 }}",
        "{% for i in range(9) %}{{ i }}{% endfor %}",
        "{{ cycler }}",
        "{% include 'other' %}",
        "{% import 'os' as os %}",
    ],
)
def test_the_sandbox_refuses(template: str) -> None:
    choices = ["가", "나"]
    with pytest.raises(TaskError):
        render(template, {"text": "글", "choices": choices})
    assert choices == ["가", "나"]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ txet }}", "'txet' is undefined"),
        ("{{ text", "end of"),
        ("{{ text | particel('은/는') }}", "No filter named 'particel'"),
        ("{{ text | particle('는/은') }}", "not one of"),
        ("{{ text | particle }}", "pair"),
        ("{{ 1 / 0 }}", "zero"),
    ],
)
def test_a_mistake_in_a_template_is_the_users(template: str, said: str) -> None:
    with pytest.raises(TaskError, match=said) as caught:
        render(template, {"text": "글"})
    assert template in str(caught.value) or "particle(" in str(caught.value)


def test_undeclared_names() -> None:
    assert undeclared("{{ a }} {{ b | particle('은/는') }} {% if c %}{{ a }}{% endif %}") == {"a", "b", "c"}
    assert undeclared("그냥 글") == set()


@pytest.mark.parametrize("template", ["{{ a", "{% if a %}", "{{ a | nothing }}", "{{ a | particle('은는') }}"])
def test_a_broken_template_is_found_before_any_record(template: str) -> None:
    with pytest.raises(ValueError, match=r".+") as caught:
        undeclared(template)
    assert not isinstance(caught.value, TaskError)


@pytest.mark.parametrize(
    ("text", "limit", "kept"),
    [
        ("짧다.", 10, "짧다."),
        ("첫 문장이다. 둘째 문장이다. 셋째.", 16, "첫 문장이다. 둘째 문장이다."),
        ('그는 말했다. "가자!" 그리고 떠났다.', 16, '그는 말했다. "가자!"'),
        ("원주율은 3.14159이고 반지름은 5이다.", 14, "원주율은 3.14159이고"),
        ("대법원 2018. 8. 30. 선고 판결에 따른다.", 20, "대법원 2018. 8. 30. 선고"),
        ("첫 줄\n둘째 줄이 이어진다", 6, "첫 줄"),
        ("가나다라마바사", 4, "가나다라"),
        ("가나 다라마바사", 5, "가나"),
    ],
)
def test_a_long_text_is_cut_at_a_sentence_end(text: str, limit: int, kept: str) -> None:
    assert truncate_sentences(text, limit) == kept


@given(text=st.text(st.sampled_from("가나다 .?!\n\"'3”"), max_size=80), limit=st.integers(1, 60))
def test_what_is_kept_is_a_short_beginning(text: str, limit: int) -> None:
    kept = truncate_sentences(text, limit)
    assert len(kept) <= max(limit, 0)
    assert text.startswith(kept)
    assert truncate_sentences(kept, limit) == kept


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'x'.center(200000000) }}",
        "{{ 'x' | center(200000000) }}",
        "{{ '%0200000000d' | format(1) }}",
        "{{ '%0200000000d' % 1 }}",
        "{{ '{:200000000}'.format('x') }}",
        "{{ 'x'.ljust(200000000) }}",
        "{{ 'x' | replace('x', t * 1) | replace('x', t) }}",
        "{{ 'x' | replace('x', t) | replace('x', t) | replace('x', t) }}",
        "{{ [t, t] | join(t) | list | join(t) }}",
        "{{ 'x' | indent(200000000) }}",
        "{% set a = 'xxxxxxxx' %}{{ a }}",
        "{% macro a() %}{{ a() }}{{ a() }}{% endmacro %}{{ a() }}",
        "{% for a in t %}{% for b in t %}{% for c in t %}xxxxxxxxxxxxxxxxxxxx{% endfor %}{% endfor %}{% endfor %}",
    ],
)
def test_nothing_makes_much_text_of_little(text: str) -> None:
    with pytest.raises(TaskError) as told:
        render(text, {"t": "x" * 3000})
    assert len(str(told.value)) < 500


def test_long_fields_still_render() -> None:
    assert len(render("{{ t | replace('x', 'y') }}", {"t": "x" * 3_000_000})) == 3_000_000
