"""A server for one model: OpenAI's audio interface over HTTP and WebSocket, and the page.

    clients ─ app ─┬─ transcriptions ─ Engine: readers │ short lane (batches) │ long lane (window by window)
                   ├─ realtime ─────── LiveLane (all streams together)
                   └─ page, models, health, metrics

The event loop receives and answers. Everything that computes runs in a few threads, each with work of its own kind, so
that none waits for another's: see `engine` and `live`.
"""
