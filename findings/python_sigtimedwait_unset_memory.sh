#!/usr/bin/env bash
# CPython 3.8 to 3.13: signal.sigtimedwait returns unset memory as a signal that nobody has sent.
#
# A signal with a handler interrupts the wait. If the time limit is over when the handler has run, the function returns
# the structure that the system call has not filled, where it should return None. Code that looks whether the result is
# None then acts on a signal that was not sent; si_signo, si_pid and si_uid are what was on the stack. Seen with CPython
# 3.8.18, 3.9.18, 3.10.13, 3.11.7, 3.12.1 and 3.13.0 on Linux, as in
#
#     3.11.7 waited for SIGTERM, none was sent: si_signo=-2001116720 si_pid=0
#
# signal.sigwaitinfo, which has no time limit, is right. Exits 0 if that is still so, 1 if not, 77 where the function is
# missing (macOS). Needs no package.
set -euo pipefail
exec python3 - <<'PYTHON'
import signal
import sys
import time

if not hasattr(signal, "sigtimedwait"):
    print("skipped: this system has no sigtimedwait")
    sys.exit(77)
signal.signal(signal.SIGALRM, lambda number, frame: time.sleep(0.5))
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
signal.setitimer(signal.ITIMER_REAL, 0.1)
received = signal.sigtimedwait({signal.SIGTERM}, 0.3)
version = sys.version.split()[0]
if received is None:
    print(f"{version} waited for SIGTERM, none was sent: None")
    sys.exit(1)
print(f"{version} waited for SIGTERM, none was sent: si_signo={received.si_signo} si_pid={received.si_pid}")
PYTHON
