"""The words of the page, in English and Korean; the browser's language decides."""

LABELS = {  # key: (English, Korean)
    "talk": ("Talk", "대화"),
    "transcribe": ("Transcribe", "받아쓰기"),
    "compare": ("Compare", "비교"),
    "conversation": ("Conversation", "대화 내용"),
    "hello": (
        "### What would you like to ask?\nType a message, record your voice, or add recordings.",
        "### 무엇이 궁금하신가요?\n입력하거나, 목소리를 녹음하거나, 녹음 파일을 추가하세요.",
    ),
    "message": ("Your message", "메시지"),
    "message_hint": (
        "Type, record with the microphone, or add recordings. Enter sends.",
        "입력하거나, 마이크로 녹음하거나, 파일을 추가하세요. Enter로 보냅니다.",
    ),
    "new": ("New conversation", "새 대화"),
    "settings": ("Settings", "설정"),
    "temperature": ("Liveliness", "다양성"),
    "temperature_hint": ("0 always gives the likeliest answer", "0이면 항상 가장 그럴듯한 답"),
    "longest": ("Longest answer, in tokens", "답변의 최대 길이(토큰)"),
    "aloud": ("Read answers aloud", "답변 읽어 주기"),
    "aloud_label": ("The answer, spoken", "읽어 주는 답변"),
    "opinion_hint": (
        "A thumb, or your correction of an answer, saves the conversation here, ready for "
        "training. Nothing else is kept, and nothing leaves this machine.",
        "엄지를 누르거나 답변을 고치면 대화가 학습용으로 이 컴퓨터에 저장됩니다. "
        "그 밖에는 아무것도 저장하지 않고, 밖으로 보내지도 않습니다.",
    ),
    "recording": ("Recording", "녹음"),
    "spoken_language": ("Spoken language", "말하는 언어"),
    "task": ("What to write", "할 일"),
    "as_said": ("What is said", "들리는 그대로"),
    "translated": ("A translation", "번역"),
    "into": ("Translate into", "번역할 언어"),
    "write": ("Write it down", "받아쓰기 시작"),
    "text": ("Text", "텍스트"),
    "captions": ("Recording with captions", "자막이 있는 녹음"),
    "segments": ("Segments", "구간"),
    "download": ("Download", "내려받기"),
    "question": ("Spoken question", "말로 한 질문"),
    "typed": ("The same, typed", "같은 질문을 글로"),
    "typed_hint": (
        "Leave it empty, and what Whisper hears is taken",
        "비워 두면 Whisper가 들은 내용을 씁니다",
    ),
    "ask_all": ("Ask all four", "넷 모두에게 묻기"),
    "spoken_answer": ("Spoken → this model", "음성 → 이 모델"),
    "typed_answer": ("Typed → this model", "글 → 이 모델"),
    "base_answer": ("Typed → its language model alone", "글 → 원래 언어 모델"),
    "cascade_answer": ("Whisper → its language model", "Whisper → 원래 언어 모델"),
    "compare_lead": (
        "One question, four ways: what the voice loses against typing, and against the cascade of "
        "a recogniser and the same language model.",
        "하나의 질문, 네 가지 방법: 글로 물을 때와, 음성 인식기를 거쳐 같은 언어 모델에 "
        "물을 때와 비교해 봅니다.",
    ),
    "transcribe_lead": (
        "A recording of any length, written down or translated, with captions to download.",
        "길이에 상관없이 녹음을 받아쓰거나 번역하고, 자막을 내려받습니다.",
    ),
}


def in_language(place: int) -> dict[str, str]:
    """Return the labels in English (0) or Korean (1)."""
    return {key: words[place] for key, words in LABELS.items()}
