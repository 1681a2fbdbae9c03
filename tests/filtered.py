#!/usr/bin/env python3
"""Run a command under the system call filter of a systemd unit, without systemd: filtered.py UNIT COMMAND...
Refused calls get EPERM, as the units say. Called by cli.sh; which calls a group has is systemd-analyze's to say."""
import ctypes, os, re, struct, subprocess, sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
ALLOW, EPERM = 0x7fff0000, 0x00050001
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # of struct seccomp_data, whose first word is the call's number


def members(group):
    out = set()
    for line in subprocess.check_output(["systemd-analyze", "syscall-filter", group], text=True).splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            out |= members(word)
        elif word and word[0] != "#":
            out.add(word)
    return out


def allowed(unit):
    out = members("@default")
    for no, words in re.findall(r"^SystemCallFilter=(~?)(.*)$", open(unit).read(), re.M):
        for word in words.split():
            calls = members(word) if word[0] == "@" else {word}
            out = out - calls if no else out | calls
    return out


def numbers():
    text = subprocess.check_output([os.environ.get("CC", "cc"), "-E", "-dM", "-include", "sys/syscall.h", "-xc", "/dev/null"], text=True)
    return {name: int(n) for name, n in re.findall(r"^#define __NR_(\w+) (\d+)$", text, re.M)}


def main():
    unit, command = sys.argv[1], sys.argv[2:]
    number = numbers()
    calls = sorted(number[c] for c in allowed(unit) if c in number)
    assert len(calls) > 100, calls
    program = [(LOAD, 0, 0, 0)]
    for n in calls:
        program += [(EQUAL, 0, 1, n), (RETURN, 0, 0, ALLOW)]
    program.append((RETURN, 0, 0, EPERM))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *p) for p in program))

    class Program(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    filter_ = Program(len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in ((PR_SET_NO_NEW_PRIVS, 1, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filter_))):
        if libc.prctl(*call, 0, 0) != 0:
            sys.exit(f"filtered.py: prctl: {os.strerror(ctypes.get_errno())}")
    os.execv(command[0], command)


main()
