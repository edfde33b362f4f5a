"""Plays server and person: starts the signer on a terminal, types a passphrase twice, prints what the signer answers."""
import json, os, pty, select, socket, struct, sys, termios

program, seal, first, second = sys.argv[1:]
ours, theirs = socket.socketpair()
child, terminal = pty.fork()
if child == 0:
    os.dup2(theirs.fileno(), 0)
    os.execv(program, [program])
theirs.close()
config = {"backend": "sealed-file", "unlock": "prompt", "sealed_file": {"path": seal}}
hello = json.dumps({"config": config, "create_root": True}).encode()
ours.sendall(struct.pack(">IQB", len(hello) + 9, 1, 1) + hello)
seen = b""
for typed in (first, second):
    prompts = seen.count(b": ")
    while seen.count(b": ") == prompts:
        assert select.select([terminal], [], [], 50)[0], seen
        seen += os.read(terminal, 1000)
    # The prompt shows a moment before the echo is switched off; no person is that fast.
    while termios.tcgetattr(terminal)[3] & termios.ECHO:
        os.sched_yield()
    os.write(terminal, typed.encode() + b"\n")
ours.settimeout(50)
header = ours.recv(13, socket.MSG_WAITALL)
body = ours.recv(struct.unpack(">I", header[:4])[0] - 9, socket.MSG_WAITALL)
ours.close()
os.waitpid(child, 0)
try:
    seen += os.read(terminal, 1000)
except OSError:
    pass
print(json.dumps({"kind": header[12], "body": body.decode("utf-8", "replace"), "terminal": seen.decode()}))
