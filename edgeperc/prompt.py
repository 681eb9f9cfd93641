"""Segment what is pointed at: in a picture, and through a stream of frames.

session = ImageSession(places.find_model("promptable"))
session.look(image)
answer = session.ask(Prompt(points=[(412, 230)]))
pieces = session.everything()

stream = VideoSession(places.find_model("promptable"))
stream.step(frame, {7: Prompt(box=(300, 120, 520, 400))})   # object 7 is new
found = stream.step(next_frame)                             # and is followed
stream.step(third_frame, {7: Prompt(points=[(310, 130)], labels=[0])})  # not this

Sessions serve one thread each, and hold their networks until `close`.
"""

from edgeperc.prompting.everything import Everything, Rules
from edgeperc.prompting.follow import Efficient, VideoSession
from edgeperc.prompting.image import Answer, ImageSession
from edgeperc.prompting.prompts import Prompt, from_detections

__all__ = [
    "Answer",
    "Efficient",
    "Everything",
    "ImageSession",
    "Prompt",
    "Rules",
    "VideoSession",
    "from_detections",
]
