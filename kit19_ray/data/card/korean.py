"""The card's Korean paragraph: what the data are, for those who read them."""

from __future__ import annotations

from kit19_ray.artifacts.data_manifests import DataManifest


def paragraph(built: DataManifest) -> str:
    """A few sentences in Korean with the build's own figures."""
    train, held_out = built["splits"]["train"]["examples"], built["splits"]["validation"]["examples"]
    repeated = sum(task["repeated"] for task in built["tasks"].values())
    leaks = sum(n for t in built["tasks"].values() for r, n in t["dropped"].items() if r.startswith("contaminated"))
    told = [
        f"공개된 한국어 말뭉치로 [KIT-19](https://arxiv.org/abs/2403.16444)를 다시 만든 지시 데이터입니다. 과제는 "
        f"{len(built['tasks']):,}개이고, 학습용 예제는 {train:,}개, 평가용으로 떼어 둔 예제는 {held_out:,}개입니다.",
        "각 예제는 지시문(`instruction`), 입력(`input`), 답(`output`)으로 이루어져 있으며, 지시문과 답의 틀은 "
        "원 논문의 것이 아니라 새로 쓴 것입니다.",
    ]
    if leaks:
        told.append(f"평가 문항이 들어 있는 원자료 {leaks:,}건은 학습 자료에서 뺐습니다.")
    if repeated:
        told.append(f"목표한 수를 채우기 위해 같은 자료를 다른 지시문으로 다시 쓴 예제가 {repeated:,}개 있습니다.")
    told += [
        "정답 레이블은 원자료의 것을 그대로 따랐고 과제마다 비율이 다릅니다. 정확도를 인용하기 전에, 가장 많은 "
        "레이블로만 답할 때의 점수와 글자만 보는 분류기의 점수를 아래 표에서 먼저 확인하시기 바랍니다.",
        "혐오 표현이나 개인에 관한 내용이 남아 있을 수 있습니다. 이용 조건은 원자료마다 다르며, 상업적 이용이나 "
        "변경을 금지한 자료도 있습니다.",
    ]
    return " ".join(told)
