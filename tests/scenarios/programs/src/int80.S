# SPDX-License-Identifier: GPL-3.0-or-later
# A 64-bit program that makes 32-bit system calls: the numbers mean other calls than they seem to.
.section .rodata
one:   .asciz "/srv/w/int80/one"
two:   .asciz "/srv/w/int80/two"
again: .asciz "/srv/w/int80/again"
.text
.globl _start
_start:
    mov $10, %eax           # unlink; 10 is mprotect in the 64-bit table
    mov $one, %ebx
    int $0x80
    test %eax, %eax
    jnz bad
    mov $38, %eax           # rename; 38 is setitimer in the 64-bit table
    mov $two, %ebx
    mov $again, %ecx
    int $0x80
    test %eax, %eax
    jnz bad
    xor %ebx, %ebx
    jmp out
bad:
    mov $3, %ebx
out:
    mov $1, %eax
    int $0x80
.section .note.GNU-stack,"",@progbits
