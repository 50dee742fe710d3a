"""The microphone: sound comes in block by block until somebody says stop."""

from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue

import numpy as np

from voicetextblender.audio import SAMPLE_RATE


def record(is_done: Callable[[], bool]) -> Iterator[np.ndarray]:
    """Yield (S,) float32 blocks at 16 kHz as they are heard, until `is_done`.

    Raises ValueError if there is no microphone, or nothing to listen with.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: the PortAudio library is not there
        raise ValueError(
            f"the microphone needs sounddevice and PortAudio ({error}); install them with: "
            f"pip install 'voicetextblender[mic]' and, on Debian, apt install libportaudio2"
        ) from None
    heard: SimpleQueue[np.ndarray] = SimpleQueue()
    try:
        stream = sounddevice.InputStream(
            samplerate=SAMPLE_RATE,
            channels=1,
            dtype="float32",
            callback=lambda block, *_: heard.put(block[:, 0].copy()),
        )
    except sounddevice.PortAudioError as error:
        raise ValueError(f"no microphone can be opened ({error}); connect one") from None
    with stream:
        while not is_done():
            try:
                yield heard.get(timeout=0.1)
            except Empty:
                continue
    while not heard.empty():
        yield heard.get()
