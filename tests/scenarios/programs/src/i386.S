# SPDX-License-Identifier: GPL-3.0-or-later
# A 32-bit program without a library: changes files in /srv/w/i386 by int $0x80.
.section .rodata
one:   .asciz "/srv/w/i386/one"
two:   .asciz "/srv/w/i386/two"
three: .asciz "/srv/w/i386/three"
moved: .asciz "/srv/w/i386/moved"
four:  .asciz "/srv/w/i386/four"
new:   .asciz "/srv/w/i386/new"
text:  .ascii "written by a 32-bit program\n"
.text
.globl _start
_start:
    mov $5, %eax            # open(one, O_WRONLY|O_TRUNC)
    mov $one, %ebx
    mov $01001, %ecx
    xor %edx, %edx
    int $0x80
    mov %eax, %ebx
    mov $4, %eax            # write
    mov $text, %ecx
    mov $28, %edx
    int $0x80
    mov $10, %eax           # unlink(two)
    mov $two, %ebx
    int $0x80
    test %eax, %eax
    jnz bad
    mov $38, %eax           # rename(three, moved)
    mov $three, %ebx
    mov $moved, %ecx
    int $0x80
    test %eax, %eax
    jnz bad
    mov $15, %eax           # chmod(four, 0600)
    mov $four, %ebx
    mov $0600, %ecx
    int $0x80
    mov $39, %eax           # mkdir(new, 0700)
    mov $new, %ebx
    mov $0700, %ecx
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
