"""A WebSocket client, by simple-websocket: url [authority]. It sends each line, and says what came.

It says "open" first. A line "!size" stands for a message of so many characters, "?" is not sent: for whoever
waits for what comes by itself.
"""

import ssl
import sys

from simple_websocket import Client, ConnectionClosed

context = None
if len(sys.argv) > 2:
    context = ssl.create_default_context(cafile=sys.argv[2])
client = Client.connect(sys.argv[1], ssl_context=context)
print("open", flush=True)
try:
    for line in sys.stdin:
        word = line.strip()
        if word != "?":
            client.send("x" * int(word[1:]) if word.startswith("!") else word)
        answer = client.receive(timeout=20)
        print(f"!{len(answer)}" if answer and len(answer) > 100 else answer, flush=True)
    client.close()
    print("left", flush=True)
except ConnectionClosed as end:
    print(f"closed {end.reason.value if hasattr(end.reason, 'value') else end.reason}", flush=True)
