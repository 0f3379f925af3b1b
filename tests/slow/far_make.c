/* Stands where make stands and lets the make of another machine do the work: sends working directory, environment and arguments, prints what
 * that one prints as it comes, and exits as it does. When this one is gone, that one stops. See far_make.py. */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

extern char **environ;
static int line;

static void fail(const char *what) {
    perror(what);
    exit(120);
}

static void put(int to, const void *data, size_t length) {
    for (const char *at = data; length;) {
        ssize_t done = write(to, at, length);
        if (done <= 0) fail("far make: write");
        at += done;
        length -= done;
    }
}

static void get(void *data, size_t length) {
    for (char *at = data; length;) {
        ssize_t done = read(line, at, length);
        if (done <= 0) fail("far make: read");
        at += done;
        length -= done;
    }
}

static void put_number(uint32_t number) {
    number = htonl(number);
    put(line, &number, sizeof number);
}

static uint32_t get_number(void) {
    uint32_t number;
    get(&number, sizeof number);
    return ntohl(number);
}

static void put_texts(char **texts) {
    uint32_t count = 0;
    while (texts[count]) count++;
    put_number(count);
    for (uint32_t at = 0; at < count; at++) {
        put_number(strlen(texts[at]));
        put(line, texts[at], strlen(texts[at]));
    }
}

int main(int count, char **words) {
    (void)count;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(PORT), .sin_addr.s_addr = inet_addr("10.0.2.2")};
    char here[4096], *folder[] = {here, NULL};

    line = socket(AF_INET, SOCK_STREAM, 0);
    if (line < 0 || connect(line, (struct sockaddr *)&to, sizeof to)) fail("far make: connect");
    if (!getcwd(here, sizeof here)) fail("far make: getcwd");
    put_texts(folder);
    put_texts(environ);
    put_texts(words);
    for (;;) {
        uint32_t length = get_number();
        char *text = malloc(length + 1);
        get(text, length);
        if (!length) return get_number();
        put(1, text, length);
        free(text);
    }
}
