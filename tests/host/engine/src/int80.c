// SPDX-License-Identifier: GPL-3.0-or-later
// Makes 32-bit system calls, also when it is compiled as a 64-bit program: unlink("old"), rename("from", "to"), and a write through open("kept", O_WRONLY|O_TRUNC).
// Static and below 4 GiB, so that the addresses of its strings fit into 32 bits. In x86_64's numbers 10 is mprotect, 38 setitimer, 5 fstat.
static long call(long number, long one, long two, long three)
{
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(one), "c"(two), "d"(three) : "memory");
    return result;
}

void _start(void)
{
    static char old[] = "old", from[] = "from", to[] = "to", kept[] = "kept", text[] = "32 bit\n";
    long bad = 0;
    if (call(10, (long)old, 0, 0) < 0)
        bad |= 1;
    if (call(38, (long)from, (long)to, 0) < 0)
        bad |= 2;
    long file = call(5, (long)kept, 01 | 01000, 0);
    if (file < 0 || call(4, file, (long)text, 7) != 7)
        bad |= 4;
    call(1, bad, 0, 0);
    for (;;)
        ;
}
