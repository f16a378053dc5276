"""Open answers, judged by another model: each alone from 1 to 10, or two side by side. The Korean rubric is ours."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kit19_ray.artifacts import sample_file
from kit19_ray.artifacts.sample_file import ScoredSample
from kit19_ray.artifacts.score_files import TaskOutcomes, TaskScores
from kit19_ray.config.schema import JudgeConfig
from kit19_ray.errors import EvaluateError
from kit19_ray.evaluate import metrics
from kit19_ray.evaluate.actors import Backend, GenerateOptions
from kit19_ray.evaluate.endpoint import CharacterTokenizer, Endpoint
from kit19_ray.evaluate.judge_questions import Question
from kit19_ray.evaluate.ray_lm import RayLM
from kit19_ray.lm.prompts import prompt_format
from kit19_ray.lm.text_encoder import TextEncoder

KEYS = ("KIT19_JUDGE_API_KEY", "OPENAI_API_KEY")
_JUDGE_TOKENS = 1024
_GRADE = re.compile(r"\[\[\s*(\d+(?:\.\d+)?)\s*\]\]")
_VERDICT = re.compile(r"\[\[\s*([ABC])\s*\]\]")

GRADING = (
    "당신은 한국어 답변을 평가하는 공정한 심사위원입니다. 마지막 질문에 대한 답변만 평가하되, 앞선 대화가 있으면 "
    "문맥으로 참고하세요.\n"
    "기준은 다음과 같습니다.\n"
    "1. 정확성: 사실과 계산이 맞는가. 참고 답안이 있으면 그 내용과 어긋나지 않는가.\n"
    "2. 지시 이행: 묻는 것에 답하고, 요구한 형식과 조건을 지켰는가.\n"
    "3. 완결성: 빠뜨린 것이나 쓸데없는 말이 없는가. 길다고 더 좋은 답변은 아닙니다.\n"
    "4. 한국어: 맞춤법과 높임이 바르고 자연스러운가. 까닭 없이 다른 언어를 섞으면 크게 감점합니다.\n"
    "먼저 장단점을 두세 문장으로 적고, 마지막 줄에 1점부터 10점까지의 점수를 [[점수]] 꼴로 쓰세요. 예: [[7]]\n"
    "1-2점은 쓸모없는 답변, 3-4점은 큰 잘못이 있는 답변, 5-6점은 절반쯤 맞는 답변, 7-8점은 작은 흠만 있는 답변, "
    "9-10점은 전문가의 답변에 견줄 만한 답변입니다."
)
COMPARING = (
    "당신은 두 한국어 답변을 견주는 공정한 심사위원입니다. 마지막 질문에 대한 두 답변만 견주되, 앞선 대화가 있으면 "
    "문맥으로 참고하세요.\n"
    "정확성, 지시 이행, 완결성, 한국어의 자연스러움을 보고, 답변이 놓인 순서와 길이에는 흔들리지 마세요.\n"
    "먼저 차이를 두세 문장으로 적고, 마지막 줄에 A가 나으면 [[A]], B가 나으면 [[B]], 견줄 만하면 [[C]]라고 쓰세요."
)


class Judge:
    """The server that `evaluate.judge.endpoint` names.

    Raises:
        EvaluateError: it does not answer, or does not know the model.
    """

    def __init__(self, config: JudgeConfig) -> None:
        key = "evaluate.judge.endpoint"
        self.backend = Endpoint(str(config.endpoint), key, KEYS, config.model, True, config.concurrency)

    def close(self) -> None:
        """Ends the connections."""
        self.backend.close()


@dataclass
class Said:
    """A conversation: the questions with what the model answered."""

    question: Question
    answers: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)

    def turns(self, last: int) -> list[dict[str, str]]:
        """The messages up to question `last`, whose answer is left out."""
        out: list[dict[str, str]] = []
        for number in range(last + 1):
            out.append({"role": "user", "content": self.question.turns[number]})
            if number < last:
                out.append({"role": "assistant", "content": self.answers[number]})
        return out


def answer(questions: Sequence[Question], lm: RayLM, wrapper: str, max_tokens: int) -> list[Said]:
    """The model's answers, every conversation's first question first; greedy.

    Args:
        wrapper: prompt wrapper where the tokenizer has no chat template; earlier turns stand as training examples.
    """
    said = [Said(question) for question in questions]
    templated = bool(getattr(lm.tokenizer, "chat_template", None))
    stop = () if templated else prompt_format(wrapper).stop
    room = max(1, min(max_tokens, lm.max_length // 2))
    for number in range(max(len(question.turns) for question in questions)):
        asked = [conversation for conversation in said if number < len(conversation.question.turns)]
        prompts: list[list[int]] = []
        for conversation in asked:
            turns = conversation.turns(number)
            text = lm.apply_chat_template(turns) if templated else _wrapped(turns, wrapper)
            conversation.prompts.append(TextEncoder.shown(text) if templated else text)
            prompts.append(lm.encoder.templated([text])[0] if templated else _wrapped_ids(turns, wrapper, lm))
        options: GenerateOptions = {"max_tokens": room, "stop": list(stop)}
        cut = [ids[-(lm.max_length - room) :] for ids in prompts]
        for conversation, completion in zip(
            asked, lm.backend.generate(cut, options, f"answers to question {number + 1}"), strict=True
        ):
            conversation.answers.append(_plain(completion.text, lm.tokenizer))
    return said


def _plain(text: str, tokenizer: Any) -> str:
    for token in getattr(tokenizer, "all_special_tokens", ()):
        text = text.replace(token, "")
    return text.strip()


def _wrapped(turns: Sequence[dict[str, str]], wrapper: str) -> str:
    """Questions and answers as training examples, up to where the last answer starts."""
    made = prompt_format(wrapper)
    return "".join(
        made.render(turn["content"]) if turn["role"] == "user" else f"{turn['content']}\n\n" for turn in turns
    )


def _wrapped_ids(turns: Sequence[dict[str, str]], wrapper: str, lm: RayLM) -> list[int]:
    """The same as tokens; an answer ends with the end-of-text token, where there is one."""
    end = None if isinstance(lm.tokenizer, CharacterTokenizer) else lm.tokenizer.eos_token_id
    if end is None:
        return lm.encoder.text([_wrapped(turns, wrapper)])[0]
    made, ids = prompt_format(wrapper), []
    for turn in turns:
        asks = turn["role"] == "user"
        ids += lm.encoder.text([made.render(turn["content"]) if asks else turn["content"]])[0]
        ids += [] if asks else [int(end)]
    return ids


def judge(name: str, said: Sequence[Said], judge_backend: Backend, config: JudgeConfig) -> list[ScoredSample]:
    """Each answer with its grade, or with the verdict against the other prefix's answer.

    Raises:
        EvaluateError: the other prefix has no answer to one of the questions.
    """
    others = _others(name, config.against) if config.against else None
    asked = [(conversation, number) for conversation in said for number in range(len(conversation.answers))]
    samples = [_sample(name, conversation, number) for conversation, number in asked]
    if others is None:
        prompts = [_graded(conversation, number) for conversation, number in asked]
    else:
        missing = [sample["doc_id"] for sample in samples if sample["doc_id"] not in others]
        if missing:
            raise EvaluateError(
                f"evaluate.judge.against: {config.against} has no answer to {', '.join(missing[:8])} of {name}"
            )
        prompts = []
        for (conversation, number), sample in zip(asked, samples, strict=True):
            other = others[sample["doc_id"]]
            # Both ways round: judges prefer the first answer, or the last.
            prompts += [
                _paired(conversation, number, sample["said"], other),
                _paired(conversation, number, other, sample["said"]),
            ]
    tokenizer = CharacterTokenizer(chat=True)
    ids = [tokenizer.encode(tokenizer.apply_chat_template(prompt)) for prompt in prompts]
    words = [c.text for c in judge_backend.generate(ids, {"max_tokens": _JUDGE_TOKENS}, f"judgements of {name}")]
    for place, sample in enumerate(samples):
        if others is None:
            sample["judgement"], sample["template"] = words[place], "graded"
            grade = grade_of(words[place])
            sample["metrics"] = {"score": grade} if grade is not None else {}
        else:
            first, second = words[2 * place], words[2 * place + 1]
            sample["judgement"], sample["template"] = f"{first}\n---\n{second}", "pairwise"
            points = points_of(first, second)
            sample["metrics"] = {"win": points} if points is not None else {}
    return samples


def grade_of(text: str) -> float | None:
    """The last [[grade]] from 1 to 10; None where there is none."""
    found = [float(grade) for grade in _GRADE.findall(text)]
    return found[-1] if found and 1 <= found[-1] <= 10 else None


def points_of(first: str, second: str) -> float | None:
    """1 for a win, 0.5 for a tie, 0 for a loss of the answer that is A in the first verdict and B in the second.

    Verdicts that contradict each other are a tie; None where one is missing.
    """
    verdicts = [_VERDICT.findall(text) for text in (first, second)]
    if not all(verdicts):
        return None
    own = [{"A": 1, "B": -1, "C": 0}[verdicts[0][-1]], {"A": -1, "B": 1, "C": 0}[verdicts[1][-1]]]
    return (1 + (sum(own) > 0) - (sum(own) < 0)) / 2 if own[0] * own[1] >= 0 else 0.5


def summarize(samples: Sequence[ScoredSample]) -> tuple[TaskScores, TaskOutcomes]:
    """The file's part of scores.json, `score` from 1 to 10 or `win` as a share, by category and turn too; outcomes."""
    name = "win" if samples and samples[0]["template"] == "pairwise" else "score"
    judged = [sample for sample in samples if name in sample["metrics"]]
    scores: TaskScores = {"n": len(judged), "unjudged": len(samples) - len(judged), "stderr": {}, "interval": {}}
    if judged:
        values = [sample["metrics"][name] for sample in judged]
        scores[name] = sum(values) / len(values)
        scores["stderr"][name] = metrics.mean_stderr(values)
        scores["interval"][name] = list(metrics.mean_interval(values))
        for part, key in (("by_category", "kind"), ("by_turn", "filter")):
            groups: dict[str, list[float]] = {}
            for sample in judged:
                groups.setdefault(str(sample[key]), []).append(sample["metrics"][name])  # type: ignore[literal-required]
            scores[part] = {group: {name: sum(v) / len(v), "n": len(v)} for group, v in sorted(groups.items())}
    return scores, {name: {sample["doc_id"]: sample["metrics"][name] for sample in judged}}


def _sample(name: str, said: Said, number: int) -> ScoredSample:
    prompt = said.prompts[number]
    return {
        "section": "judge",
        "task": name,
        "doc_id": f"{said.question.id}.{number + 1}",
        "kind": said.question.category,
        "filter": f"turn {number + 1}",
        "prompt": prompt,
        "prompt_hash": hashlib.sha256(prompt.encode()).hexdigest(),
        "said": said.answers[number],
        "gold": said.question.references[number],
    }


def _others(name: str, against: str) -> dict[str, str]:
    found = {s["doc_id"]: s["said"] for s in sample_file.read(against) if s["section"] == "judge" and s["task"] == name}
    if not found:
        raise EvaluateError(f"evaluate.judge.against: {against} holds no judged answers to {name}")
    return found


def _graded(said: Said, number: int) -> list[dict[str, str]]:
    text = f"{_asked(said, number)}\n\n[답변]\n{said.answers[number]}"
    return [{"role": "system", "content": GRADING}, {"role": "user", "content": text}]


def _paired(said: Said, number: int, first: str, second: str) -> list[dict[str, str]]:
    text = f"{_asked(said, number)}\n\n[답변 A]\n{first}\n\n[답변 B]\n{second}"
    return [{"role": "system", "content": COMPARING}, {"role": "user", "content": text}]


def _asked(said: Said, number: int) -> str:
    """The question with the conversation before it and the reference, for the judge."""
    *earlier, last = said.turns(number)
    names = {"user": "사용자", "assistant": "답변자"}
    before = "\n".join(f"{names[turn['role']]}: {turn['content']}" for turn in earlier)
    parts = [f"[앞선 대화]\n{before}"] if before else []
    parts.append(f"[질문]\n{last['content']}")
    reference = said.question.references[number]
    return "\n\n".join([*parts, *([f"[참고 답안]\n{reference}"] if reference else [])])
