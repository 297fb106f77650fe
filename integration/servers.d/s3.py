"""moto_server on a loopback port, one request at a time.

moto looks at a condition and writes in two steps, and its server answers each request in a thread of its own: two
conditional writes at the same time can both succeed, which S3 rules out. The lock makes each request one step.
"""

import sys
import threading

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

moto = DomainDispatcherApplication(create_backend_app)
turn = threading.Lock()


def one_at_a_time(environ, start_response):
    with turn:
        return moto(environ, start_response)


run_simple("127.0.0.1", int(sys.argv[1]), one_at_a_time, threaded=True)
