"""Which system calls a sealed program may make, in groups, with the reason for each group.

An allow-list: what is not named here does not exist (ENOSYS), so that a call that a later kernel
adds is closed until somebody has thought about it. The groups were found by running CPython,
NumPy, PyTorch with DataLoader workers, multiprocessing, subprocess and OpenMP. The numbers in
``syscalls.csv`` are the kernel's own (asm/unistd_64.h, asm-generic/unistd.h).
"""

from __future__ import annotations

import csv
import errno
import functools
from collections.abc import Mapping
from importlib import resources
from typing import Final

#: Allowed whatever the arguments. Group: (why, names).
ALLOWED: Final[Mapping[str, tuple[str, str]]] = {
    "files": (
        "The file system inside holds only what was mounted for this sandbox, so names and "
        "contents may be worked with freely; the mounts decide what can be written.",
        "open openat creat close close_range read write readv writev pread64 pwrite64 "
        "preadv pwritev pwritev2 lseek stat lstat fstat newfstatat statx access faccessat "
        "faccessat2 readlink readlinkat getdents getdents64 getcwd chdir fchdir mkdir mkdirat "
        "rmdir unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat truncate "
        "ftruncate fallocate fsync fdatasync sync_file_range statfs fstatfs umask chmod "
        "fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes futimesat utimensat "
        "flock sendfile copy_file_range splice tee dup dup2 dup3 pipe pipe2 readahead "
        "mknod mknodat",
    ),
    "waiting": (
        "Waiting for descriptors, timers and events that the program made itself.",
        "poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_wait "
        "epoll_wait_old epoll_pwait epoll_pwait2 eventfd eventfd2 timerfd_create timerfd_settime "
        "timerfd_gettime signalfd signalfd4",
    ),
    "memory": (
        "Own memory only; the control group bounds how much. PROT_EXEC stays open because oneDNN "
        "and other kernels of PyTorch generate code. mincore is left out: it shows which pages of "
        "shared data other jobs have read.",
        "brk mmap munmap mremap mprotect madvise msync mlock mlock2 munlock mlockall munlockall "
        "membarrier pkey_alloc pkey_free pkey_mprotect mseal",
    ),
    "threads and processes": (
        "Starting, ending and waiting for processes in an own process namespace; how many is "
        "bounded by the control group. clone is examined below: no flag may make a namespace.",
        "fork vfork execve execveat exit exit_group wait4 waitid set_tid_address set_robust_list "
        "get_robust_list rseq futex futex_waitv futex_wake futex_wait futex_requeue gettid getpid "
        "getppid getpgid setpgid getpgrp getsid setsid arch_prctl pause restart_syscall "
        "pidfd_open pidfd_send_signal",
    ),
    "signals": (
        "Signals reach only processes of the same process namespace.",
        "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend "
        "rt_sigqueueinfo rt_tgsigqueueinfo sigaltstack kill tkill tgkill alarm setitimer getitimer",
    ),
    "clocks": (
        "Reading clocks and sleeping. Setting any clock is refused.",
        "clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times "
        "timer_create timer_settime timer_gettime timer_getoverrun timer_delete",
    ),
    "who and how much": (
        "Asking for identity and limits tells only of this sandbox. prlimit64 can lower limits, "
        "never raise them past the hard ones set from outside.",
        "getuid geteuid getgid getegid getresuid getresgid getgroups getrlimit setrlimit prlimit64 "
        "getrusage sysinfo uname getrandom getcpu capget getpriority setpriority "
        "sched_getaffinity sched_setaffinity sched_yield sched_getparam sched_getscheduler "
        "sched_get_priority_max sched_get_priority_min sched_rr_get_interval get_mempolicy",
    ),
    "local sockets": (
        "multiprocessing passes descriptors and data over AF_UNIX sockets. Only socket and "
        "socketpair make them, and both are examined below, so these calls can only ever touch a "
        "local socket of this sandbox: path sockets lie in its own directories, abstract names in "
        "its own network namespace. What may be set on them is examined too.",
        "connect bind listen accept accept4 getsockname getpeername getsockopt shutdown "
        "sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg",
    ),
}

#: Answered with a plain refusal. Group: (why, errno, names).
REFUSED: Final[Mapping[str, tuple[str, int, str]]] = {
    "namespaces and mounts": (
        "A new user namespace gives all capabilities over new namespaces, and with them the parts "
        "of the kernel where most escapes were found.",
        errno.EPERM,
        "unshare setns mount umount2 pivot_root chroot open_tree open_tree_attr move_mount "
        "mount_setattr fsopen fsconfig fsmount fspick statmount listmount quotactl quotactl_fd "
        "swapon swapoff",
    ),
    "clone3": (
        "Its flags lie in memory, where a filter cannot look. ENOSYS makes the C library fall "
        "back to clone, whose flags are examined.",
        errno.ENOSYS,
        "clone3",
    ),
    "openat2": (
        "Its flags lie in memory too, and RESOLVE_CACHED among them answers only from the cache of "
        "names: who asks learns which files others have opened. Nobody needs it where openat is.",
        errno.ENOSYS,
        "openat2",
    ),
    "other processes' insides": (
        "No tracing, reading or stealing descriptors, not even of one's own children: a debugger "
        "is a way around every later check inside.",
        errno.EPERM,
        "ptrace process_vm_readv process_vm_writev process_madvise process_mrelease pidfd_getfd "
        "kcmp move_pages migrate_pages",
    ),
    "large kernel machinery": (
        "io_uring makes calls that no filter sees; bpf, perf and userfaultfd are the usual steps "
        "of a kernel exploit; the key rings are not separated by any namespace used here.",
        errno.EPERM,
        "io_uring_setup io_uring_enter io_uring_register bpf perf_event_open userfaultfd add_key "
        "request_key keyctl fanotify_init fanotify_mark lookup_dcookie seccomp memfd_secret "
        "io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents",
    ),
    "seeing others": (
        "Page cache, file watches and handles belong to the machine: with them two jobs on the "
        "same data could see or signal one another.",
        errno.EPERM,
        "mincore cachestat inotify_init inotify_init1 inotify_add_watch inotify_rm_watch "
        "name_to_handle_at open_by_handle_at",
    ),
    "System V IPC and message queues": (
        "Nothing of the image needs them; POSIX shared memory lies in the bounded /dev/shm.",
        errno.EPERM,
        "shmget shmat shmdt shmctl semget semop semtimedop semctl msgget msgsnd msgrcv msgctl "
        "mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr",
    ),
    "the machine": (
        "Clocks, modules, ports, accounting, names and the log of the kernel are the host's.",
        errno.EPERM,
        "settimeofday clock_settime clock_adjtime adjtimex reboot kexec_load kexec_file_load "
        "init_module finit_module delete_module create_module iopl ioperm modify_ldt acct syslog "
        "sethostname setdomainname vhangup uselib nfsservctl sysfs personality sync syncfs",
    ),
    "identity": (
        "There is one user in the sandbox, so changing to another can only be an attempt.",
        errno.EPERM,
        "setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid capset "
        "sched_setscheduler sched_setparam sched_setattr ioprio_set",
    ),
    "extended attributes": (
        "They would be a way to hide bytes beside a file. ENOTSUP is what copying tools expect.",
        errno.ENOTSUP,
        "setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr "
        "removexattr lremovexattr fremovexattr setxattrat getxattrat listxattrat removexattrat",
    ),
}

#: Examined by their arguments in seccomp.py, with the reason there.
EXAMINED: Final = (
    "clone",
    "socket",
    "socketpair",
    "setsockopt",
    "ioctl",
    "prctl",
    "fcntl",
    "preadv2",
    "fadvise64",
)


@functools.cache
def numbers(machine: str) -> Mapping[str, int]:
    """Return system call numbers by name for ``x86_64`` or ``aarch64``. Raises KeyError else."""
    text = resources.files(__package__).joinpath("syscalls.csv").read_text(encoding="ascii")
    rows = list(csv.DictReader(text.splitlines()))
    if machine not in rows[0]:
        raise KeyError(machine)
    return {row["name"]: int(row[machine]) for row in rows if row[machine]}
